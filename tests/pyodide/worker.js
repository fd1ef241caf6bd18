// Runs contract cases in Pyodide, each on a database of its own on OPFS: everything of the product's worker but its engine.

import { openDatabase } from "./durably-web/opfs.js";
import { placeOf } from "./durably-web/place.js";
import { Downloads } from "./durably-web/downloads.js";
import { bootPython } from "./durably-web/python.js";
import { loadSqlite } from "./durably-web/sqlite.js";
import { Wheels } from "./durably-web/wheels.js";

const runtime = new URL("durably-web/", import.meta.url).href;
const options = { jobs: [], database: "contract", base: "/", runtime, pyodide: null, snapshot: true, requirements: [], durability: "full" };

let connection;
let other;

async function boot() {
  const sqlite3 = await loadSqlite(runtime);
  const downloads = new Downloads(options);
  const pyodide = await bootPython(options, downloads, () => {}, () => {});
  const wheels = new Wheels(pyodide, downloads.manifest, runtime);
  pyodide.registerJsModule("durably_bridge", {
    run_batch: (text) => connection.runBatch(text),
    run_other_batch: (text) => other.runBatch(text),
    wheel: (name) => wheels.load(name),
    ...{ post() {}, running() {}, broken() {} },
  });
  pyodide.unpackArchive(await (await fetch("suites.zip")).arrayBuffer(), "zip");
  const { run, ask } = pyodide.pyimport("tests.pyodide.in_worker");
  return { sqlite3, run, ask };
}

const booted = boot();

addEventListener("message", async ({ data: [suite, name, habit] }) => {
  try {
    const { sqlite3, run, ask } = await booted;
    if (suite === "ask") {
      postMessage(await ask(name, habit));
      return;
    }
    const open = async () => openDatabase(sqlite3, await placeOf("/", `case-${crypto.randomUUID()}`), options.durability);
    connection = await open();
    // Of two databases.
    if (suite.startsWith("handover")) other = await open();
    try {
      postMessage(await run(suite, name, habit));
    } finally {
      connection.close();
      other?.close();
      other = undefined;
    }
  } catch (error) {
    postMessage(String(error?.stack ?? error));
  }
});
