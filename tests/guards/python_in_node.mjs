// Run the Python on standard input as the site's Python would, in Node, with our wheel on its path as web/python.js puts it there.
// Prints the value of the last expression. The bridge to SQLite is there to be imported, and answers nothing.

import { readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const runtime = path.resolve(process.argv[2]);
const manifest = JSON.parse(readFileSync(path.join(runtime, "manifest.json"), "utf8"));
const indexURL = path.join(runtime, "pyodide") + path.sep;

try {
  const { loadPyodide } = await import(pathToFileURL(path.join(indexURL, "pyodide.mjs")).href);
  const pyodide = await loadPyodide({ indexURL });
  const nothing = () => undefined;
  pyodide.registerJsModule("durably_bridge", { run_batch: () => '{"rows":[]}', post: nothing, running: nothing, broken: nothing });
  pyodide.FS.writeFile("/lib/durably_web.whl", readFileSync(path.join(runtime, manifest.wheel)));
  pyodide.runPython('import sys; sys.path.append("/lib/durably_web.whl")');
  console.log(await pyodide.runPythonAsync(readFileSync(0, "utf8")));
} catch (error) {
  // Only the message: Node would print the offending line, and that line is the whole of Pyodide.
  console.error(error.message);
  process.exit(1);
}
