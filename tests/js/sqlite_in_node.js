// SQLite WASM in Node, in memory: the same connection that the browser's worker has, without its files.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { Connection } from "../../web/sqlite.js";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { default: init } = await import(pathToFileURL(require.resolve("@sqlite.org/sqlite-wasm")).href);

globalThis.sqlite3ApiConfig = { warn() {}, error() {} };
const sqlite3 = await init();

/** A connection to a new database in memory. */
export function connect() {
  return new Connection(sqlite3, new sqlite3.oo1.DB(":memory:"));
}

/** Run statements as one write batch; returns the parsed reply. */
export function write(connection, ...statements) {
  return JSON.parse(connection.runBatch(JSON.stringify({ mode: "write", statements })));
}

/** Run statements as one read batch; returns the parsed reply. */
export function read(connection, ...statements) {
  return JSON.parse(connection.runBatch(JSON.stringify({ mode: "read", statements })));
}
