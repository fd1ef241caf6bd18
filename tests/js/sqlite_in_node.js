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

/** A connection to a database in memory that begins as the bytes of a file, which is in no WAL mode. */
export function connectTo(bytes) {
  const db = new sqlite3.oo1.DB(":memory:");
  const { capi, wasm } = sqlite3;
  const flags = capi.SQLITE_DESERIALIZE_FREEONCLOSE | capi.SQLITE_DESERIALIZE_RESIZEABLE;
  db.checkRc(capi.sqlite3_deserialize(db.pointer, "main", wasm.allocFromTypedArray(bytes), bytes.length, bytes.length, flags));
  return new Connection(sqlite3, db);
}

/** Run statements as one write batch; returns the parsed reply. */
export function write(connection, ...statements) {
  return JSON.parse(connection.runBatch(JSON.stringify({ mode: "write", statements })));
}

/** Run statements as one read batch; returns the parsed reply. */
export function read(connection, ...statements) {
  return JSON.parse(connection.runBatch(JSON.stringify({ mode: "read", statements })));
}
