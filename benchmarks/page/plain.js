/**
 * Pyodide as its own documentation starts it, with nothing of ours: what a start is compared with.
 *
 * `?stock` takes the files of its npm package as they are; without it they are the site's, whose standard library is byte code.
 *
 * @module
 */

const folder = location.search === "?stock" ? "stock/" : "durably-web/pyodide/";
const indexURL = new URL(folder, location.href).href;
const { loadPyodide } = await import(`${indexURL}pyodide.mjs`);
const pyodide = await loadPyodide({ indexURL });
postMessage(pyodide.runPython("1 + 1"));
