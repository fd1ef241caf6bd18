// Make the memory of a Python that has started and has imported the engine, for browsers to go on from.
//
//   node make_snapshot.mjs RUNTIME_DIR WHEEL TARGET
//
// Of the very files that the browser gets: the memory knows where in the archives the modules are. Nothing of this machine
// may be in it, neither paths nor objects of JavaScript. What an interpreter learns from its surroundings when it starts is
// learned anew after each restore, see durably_web/restored.py.

import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

// What Pyodide's memory has from the beginning, in bytes. It takes no larger one back: pyodide#6254.
const ROOM = 31_457_280;

const [runtime, wheel, target] = process.argv.slice(2);
if (!target) {
  console.error("usage: make_snapshot.mjs RUNTIME_DIR WHEEL TARGET");
  process.exit(2);
}

const indexURL = path.resolve(runtime, "pyodide") + path.sep;
const { loadPyodide } = await import(pathToFileURL(path.join(indexURL, "pyodide.mjs")).href);
// As a browser's Python is told it is called.
const pyodide = await loadPyodide({ indexURL, _makeSnapshot: true, _sysExecutable: "./this.program" });
// As web/python.js does it.
pyodide.FS.writeFile("/lib/durably_web.whl", readFileSync(wheel));
pyodide.runPython(`
import gc, sys
sys.path.append("/lib/durably_web.whl")
import durably_web.browser, durably_web.restored

assert "durably_bridge" not in sys.modules, "the bridge belongs to one worker"
gc.collect()
`);
const memory = pyodide.makeMemorySnapshot();
const size = pyodide._module.HEAP8.length;
if (size !== ROOM) throw new Error(`Python has grown to ${size} bytes, and a browser's begins with ${ROOM}: import less into it`);
writeFileSync(target, gzipSync(memory, { level: 9 }));
