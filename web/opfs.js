/**
 * Opening a database on the origin private file system, and proving that it keeps what it is given.
 *
 * Nothing here falls back to less than was asked for.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { patiently } from "./ownership.js";
import { classify, Connection, NO_ROOM } from "./sqlite.js";

/** @typedef {{directory: string, vfs: string}} Files  Where a database is, on OPFS and for SQLite. */
/** @typedef {import("./protocol.js").Durability} Durability */
/** @typedef {import("./sqlite.js").Sqlite3} Sqlite3 */
/** @typedef {import("@sqlite.org/sqlite-wasm").SAHPoolUtil} Pool */

// Older ones do not roll back a transaction that was killed after its cache spilled.
const OLDEST_VERSION = 3054001;
const FILE = "/durably.db";
const PART_BYTES = 1 << 20;
const NO_ROOM_TO_OPEN = "the database cannot be opened";

/**
 * Open a database. Only for the holder of its place's lock.
 *
 * Rejects with `NotADatabase` for what is none, or none of ours, and with `StorageDamaged` for one that cannot be read; such a file is
 * left as it is. Not everything in it is read here: what is damaged further in shows when it is used.
 *
 * @param {Sqlite3} sqlite3
 * @param {Files} files
 * @param {Durability} durability
 * @param {object} [owner]
 * @param {() => boolean} [owner.holds]  whether this worker still owns the files
 * @param {(reason: string) => void} [owner.onDamage]
 * @returns {Promise<Connection>}
 */
export async function openDatabase(sqlite3, files, durability, owner) {
  if (sqlite3.version.libVersionNumber < OLDEST_VERSION) {
    throw new DurablyError(
      "StoreNotDurable",
      `SQLite ${sqlite3.version.libVersion} can lose a rollback on OPFS; 3.54.1 or newer is needed`,
    );
  }
  return connect(sqlite3, await openPool(sqlite3, files), owner, (connection) => {
    requireOurs(connection);
    promiseDurability(connection, durability);
  });
}

/**
 * Open a database that is not to be used as one: to be checked, or copied. The same, without a promise.
 *
 * @param {Sqlite3} sqlite3
 * @param {Files} files
 * @param {(connection: Connection) => void} [check]
 * @param {Blob} [content]  to be put into the file first
 * @returns {Promise<Connection>}
 */
export async function openAside(sqlite3, files, check = () => {}, content) {
  const pool = await openPool(sqlite3, files);
  if (content !== undefined) await fill(pool, content);
  return connect(sqlite3, pool, undefined, check);
}

/**
 * @param {Sqlite3} sqlite3
 * @param {Pool} pool
 * @param {{holds?: () => boolean, onDamage?: (reason: string) => void} | undefined} owner
 * @param {(connection: Connection) => void} prepare
 */
function connect(sqlite3, pool, owner, prepare) {
  let connection;
  try {
    const db = new pool.OpfsSAHPoolDb(FILE);
    connection = new Connection(sqlite3, db, { release: () => pool.pauseVfs(), ...owner });
    // Before anything is read: WAL works without shared memory only for a connection that was exclusive before.
    connection.query("PRAGMA locking_mode = exclusive");
    prepare(connection);
    return connection;
  } catch (error) {
    const failure = openingFailure(sqlite3, error);
    if (connection) connection.close();
    else pool.pauseVfs();
    throw failure;
  }
}

/**
 * @param {Pool} pool
 * @param {Blob} content
 */
async function fill(pool, content) {
  let at = 0;
  const next = async () => {
    if (at >= content.size) return undefined;
    const part = new Uint8Array(await content.slice(at, at + PART_BYTES).arrayBuffer());
    at += part.byteLength;
    return part;
  };
  try {
    await pool.importDb(FILE, next);
  } catch (error) {
    pool.pauseVfs();
    const { name, message } = failureOf(error);
    if (name === "QuotaExceededError" || message.startsWith("Expected to write")) throw new DurablyError("StorageFull", NO_ROOM, { cause: error });
    throw new DurablyError("NotADatabase", `this is not a SQLite database: ${message}`, { cause: error });
  }
}

/** @param {Connection} connection */
function requireOurs(connection) {
  const tables = connection.query("SELECT name FROM sqlite_master WHERE type = 'table'").map(([name]) => name);
  if (tables.length > 0 && !tables.includes("durably_schema") && !tables.includes("durably_inbox")) {
    throw new DurablyError("NotADatabase", `the database of another application: it has the tables ${tables.slice(0, 5).join(", ")}`);
  }
  // What every start reads.
  connection.lastSeq();
}

/**
 * @param {Sqlite3} sqlite3
 * @param {Files} files
 */
async function openPool(sqlite3, files) {
  try {
    const pool = await patiently(() =>
      sqlite3.installOpfsSAHPoolVfs({
        name: files.vfs,
        directory: files.directory,
        // Without the first, a failed opening deletes the files; without the second, it can never be repeated.
        preserveOnInitFailure: true,
        ...{ forceReinitIfPreviouslyFailed: true },
      }),
    );
    // One that this worker has had before.
    if (pool.isPaused()) await patiently(() => pool.unpauseVfs());
    return pool;
  } catch (error) {
    if (error instanceof DurablyError) throw error;
    const failure = failureOf(error);
    if (failure.name === "QuotaExceededError") {
      throw new DurablyError("StorageFull", `${NO_ROOM_TO_OPEN}: ${NO_ROOM}`, { cause: error });
    }
    throw new DurablyError(
      "StoreUnavailable",
      `the browser gives this page no private file system (a private window?): ${failure.name}: ${failure.message}`,
      { cause: error },
    );
  }
}

/**
 * Set what durability needs, read every answer back, and watch one real commit.
 *
 * @param {Connection} connection
 * @param {Durability} durability
 */
function promiseDurability(connection, durability) {
  const pragmas = /** @type {[string, string, string | number][]} */ ([
    ["locking_mode", "exclusive", "exclusive"],
    ["journal_mode", "wal", "wal"],
    ["synchronous", durability === "full" ? "full" : "normal", durability === "full" ? 2 : 1],
    ["temp_store", "memory", 2],
    ["foreign_keys", "on", 1],
  ]);
  for (const [pragma, wish, expected] of pragmas) {
    connection.query(`PRAGMA ${pragma} = ${wish}`);
    const answer = connection.query(`PRAGMA ${pragma}`)[0]?.[0];
    if (answer !== expected) {
      throw new DurablyError("StoreNotDurable", `PRAGMA ${pragma} should be ${expected} and is ${answer}`);
    }
  }
  const flushes = flushesDuring(() => {
    const version = connection.query("PRAGMA user_version")[0]?.[0];
    connection.query(`PRAGMA user_version = ${version}`);
  });
  if (durability === "full" && flushes === 0) {
    throw new DurablyError("StoreNotDurable", "a commit reached no flush() of the file system");
  }
}

/**
 * @param {() => void} work
 * @returns {number} how often the file system was asked to flush meanwhile
 */
function flushesDuring(work) {
  const handle = /** @type {{FileSystemSyncAccessHandle: {prototype: {flush(): void}}}} */ (
    /** @type {unknown} */ (globalThis)
  ).FileSystemSyncAccessHandle.prototype;
  const flush = handle.flush;
  let count = 0;
  handle.flush = function () {
    count += 1;
    flush.call(this);
  };
  try {
    work();
  } finally {
    handle.flush = flush;
  }
  return count;
}

/**
 * @param {Sqlite3} sqlite3
 * @param {unknown} error
 */
function openingFailure(sqlite3, error) {
  if (error instanceof DurablyError) return error;
  const { code, message } = classify(sqlite3, error);
  if (code === "SQLITE_NOTADB") return new DurablyError("NotADatabase", "the file is not a SQLite database", { cause: error });
  if (code.startsWith("SQLITE_CORRUPT")) return new DurablyError("StorageDamaged", `the file is damaged: ${message}`, { cause: error });
  if (code === "SQLITE_FULL") return new DurablyError("StorageFull", `${NO_ROOM_TO_OPEN}: ${NO_ROOM}`, { cause: error });
  return new DurablyError("StoreUnavailable", `the database cannot be opened: ${code}: ${message}`, { cause: error });
}
