// Compile Python sources with the Python that will run them.
//
// Byte code is tied to a Python version, and the machine that builds the site rarely has Pyodide's. So Pyodide itself
// does it, in Node, offline:
//
//   node compile_python.mjs PYODIDE_DIR SOURCE_DIR
//
// module.pyc comes beside module.py, where it is looked for inside an archive. It is marked "unchecked": valid whatever
// the time stamp or size of the source.

import { pathToFileURL } from "node:url";
import path from "node:path";

const [pyodideDirectory, sourceDirectory] = process.argv.slice(2);
if (!sourceDirectory) {
  console.error("usage: compile_python.mjs PYODIDE_DIR SOURCE_DIR");
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
    legacy=True,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
json.dumps({"done": bool(done), "tag": sys.implementation.cache_tag, "python": sys.version.split()[0]})
`,
);
console.log(report);
process.exit(JSON.parse(report).done ? 0 : 1);
