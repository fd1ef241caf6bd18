/**
 * The engine's own modules, joined for measuring: one database, and Python with the benchmark in it.
 *
 * @module
 */

import { openDatabase } from "./durably-web/opfs.js";
import { placeOf } from "./durably-web/place.js";
import { Downloads } from "./durably-web/downloads.js";
import { bootPython } from "./durably-web/python.js";
import { loadSqlite } from "./durably-web/sqlite.js";

const RUNTIME = new URL("durably-web/", import.meta.url).href;
const FOLDER = "/home/pyodide/benchmarks";

// Before anything else imports it.
const TIME_OF_IMPORT = `
import time
begun = time.perf_counter()
from durably_web import Durably, job
(time.perf_counter() - begun) * 1000
`;

async function measure({ durability, modules, ...settings }) {
  const place = await placeOf(new URL(".", import.meta.url).pathname, `bench-${durability}`);
  const options = { runtime: RUNTIME, pyodide: null, snapshot: true, jobs: [], requirements: [] };
  const connection = await openDatabase(await loadSqlite(RUNTIME), place, durability);
  // As in the engine's worker, Python only starts when the database is open.
  const pyodide = await bootPython(options, new Downloads(options), () => {}, () => {});
  try {
    pyodide.FS.mkdir(FOLDER);
    for (const name of modules) {
      const answer = await fetch(new URL(`modules/${name}`, import.meta.url));
      pyodide.FS.writeFile(`${FOLDER}/${name}`, await answer.text());
    }
    pyodide.registerJsModule("durably_bridge", { run_batch: (text) => connection.runBatch(text), post() {}, running() {}, broken() {} });
    const importing = pyodide.runPython(TIME_OF_IMPORT);
    const inside = pyodide.pyimport("benchmarks.inside");
    return await inside.measure(JSON.stringify({ ...settings, importing }));
  } finally {
    connection.close();
  }
}

addEventListener("message", async ({ data }) => {
  try {
    postMessage({ text: await measure(data) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
});
