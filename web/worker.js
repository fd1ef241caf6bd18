/**
 * The worker that owns the database, or waits to: joins lock, SQLite, Python and the page.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { holdLifeline, lead } from "./leader.js";
import { openDatabase } from "./opfs.js";
import { placeOf } from "./place.js";
import { PROTOCOL_VERSION } from "./protocol.js";
import { bootPython, downloadParts, startEngine } from "./python.js";
import { loadSqlite } from "./sqlite.js";

/** @typedef {import("./protocol.js").FromWorker} FromWorker */
/** @typedef {import("./protocol.js").ToWorker} ToWorker */
/** @typedef {import("./sqlite.js").Connection} Connection */

/** @type {PromiseWithResolvers<import("./python.js").Engine>} */
const engine = Promise.withResolvers();
engine.promise.catch(() => {});

/** @type {Promise<Connection> | undefined} */
let database;
let release = () => {};
/** @type {string[]} */
let heard = [];

/** @param {FromWorker} message */
function tell(message) {
  postMessage(message);
}

/** @param {import("./protocol.js").Phase} phase */
function reach(phase) {
  tell({ type: "status", phase, at: Math.round(performance.now()) });
}

/** @param {import("./protocol.js").BootOptions} options */
async function boot(options) {
  await requireStorage();
  tell({ type: "hello", lifeline: await holdLifeline() });
  const place = await placeOf(options.base, options.database);
  reach("locking");
  release = await lead(place.lock, () => reach("follower"));
  reach("opening");
  const downloads = downloadParts(options);
  downloads.catch(() => {});
  // Python waits for the database to be open. Where both start at once, Chromium sometimes leaves a
  // createSyncAccessHandle() unanswered for ever, and it is no faster.
  database = loadSqlite(options.runtime).then((sqlite3) => openDatabase(sqlite3, place, options.durability));
  const connection = await database;
  reach("python");
  const pyodide = await bootPython(options, downloads, reach);
  reach("jobs");
  const bridge = {
    /** @param {string} text */
    run_batch: (text) => connection.runBatch(text),
    /** @param {string} text */
    post: (text) => tell({ type: "event", text }),
  };
  engine.resolve(await startEngine(pyodide, bridge, (await downloads).sources, options.encryptionKeys, heard));
  reach("running");
}

/** Say at once what this browser cannot give, rather than after a wait for the lock. */
async function requireStorage() {
  const missing = !isSecureContext
    ? "this page is not a secure context: serve it over https, or from localhost"
    : !navigator.locks
      ? "this browser has no Web Locks"
      : !navigator.storage?.getDirectory || !("createSyncAccessHandle" in FileSystemFileHandle.prototype)
        ? "this browser has no origin private file system (OPFS) for workers"
        : null;
  if (missing) throw new DurablyError("StoreUnavailable", missing);
  try {
    await navigator.storage.getDirectory();
  } catch (error) {
    throw new DurablyError(
      "StoreUnavailable",
      `the browser gives this page no private file system (a private window?): ${failureOf(error).message}`,
      { cause: error },
    );
  }
}

/** @param {Extract<ToWorker, {type: "request"}>} message */
async function respond({ id, text }) {
  try {
    const { handle } = await engine.promise;
    tell({ type: "response", id, text: await handle(text) });
  } catch (error) {
    const { name, message } = failureOf(error);
    tell({ type: "response", id, text: JSON.stringify({ status: 500, body: { name, error: message } }) });
  }
}

/** @param {unknown} error */
async function fail(error) {
  engine.reject(error);
  tell({ type: "failed", error: failureOf(error) });
  // Another tab may have better luck; this one must not keep the database from it.
  await letGo();
}

/** @param {string[]} events */
async function listen(events) {
  heard = events;
  const { listen } = await engine.promise;
  listen(JSON.stringify(heard));
}

async function letGo() {
  const connection = await database?.catch(() => undefined);
  connection?.close();
  release();
}

async function close() {
  try {
    if (database) await (await engine.promise).stop();
  } finally {
    await letGo();
    tell({ type: "closed" });
  }
}

addEventListener("message", ({ data }) => {
  const message = /** @type {ToWorker} */ (data);
  switch (message.type) {
    case "boot":
      if (message.protocol !== PROTOCOL_VERSION) {
        void fail(new DurablyError("BootFailed", "the page and its worker are of two versions: reload the page"));
      } else {
        boot(message.options).catch(fail);
      }
      break;
    case "listen":
      // Without an engine there is nothing to hear, and the failure is told elsewhere.
      listen(message.events).catch(() => {});
      break;
    case "request":
      void respond(message);
      break;
    case "close":
      void close();
      break;
  }
});
