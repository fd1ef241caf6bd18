/**
 * Pyodide of the site as its own documentation starts it, with nothing of ours: what a start is compared with.
 *
 * @module
 */

import { loadPyodide } from "./durably-web/pyodide/pyodide.mjs";

const pyodide = await loadPyodide({ indexURL: new URL("durably-web/pyodide/", import.meta.url).href });
postMessage(pyodide.runPython("1 + 1"));
