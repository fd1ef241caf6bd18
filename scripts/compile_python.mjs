// Compile Python sources with the Python that will run them.
//
// Byte code is tied to a Python version, and the machine that builds the site rarely has Pyodide's. So Pyodide itself
// does it, in Node, offline. Two layouts:
//
//   node compile_python.mjs PYODIDE_DIR SOURCE_DIR cache    into __pycache__/, for files on a path
//   node compile_python.mjs PYODIDE_DIR SOURCE_DIR beside   module.pyc beside module.py, for files inside a zip
//
// The byte code is marked "unchecked": it is valid whatever the time stamp or size of the source that lies beside it.
// Unpacking gives every file the time of the unpacking, and a checked file would then be compiled again.

import { pathToFileURL } from "node:url";
import path from "node:path";

const [pyodideDirectory, sourceDirectory, layout] = process.argv.slice(2);
if (!pyodideDirectory || !sourceDirectory || !["cache", "beside"].includes(layout)) {
  console.error("usage: compile_python.mjs PYODIDE_DIR SOURCE_DIR cache|beside");
  process.exit(2);
}

const indexURL = path.resolve(pyodideDirectory) + path.sep;
const { loadPyodide } = await import(pathToFileURL(path.join(indexURL, "pyodide.mjs")).href);
const pyodide = await loadPyodide({ indexURL });
pyodide.mountNodeFS("/source", path.resolve(sourceDirectory));

const report = pyodide.runPython(
  `
import compileall, json, os, py_compile, sys

done = compileall.compile_dir(
    "/source",
    stripdir="/source",
    quiet=1,
    force=True,
    legacy=layout == "beside",
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
json.dumps({"done": bool(done), "tag": sys.implementation.cache_tag, "python": sys.version.split()[0]})
`,
  { globals: pyodide.toPy({ layout }) },
);
console.log(report);
process.exit(JSON.parse(report).done ? 0 : 1);
