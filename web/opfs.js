/**
 * Opening a database on the origin private file system, and proving that it keeps what it is given.
 *
 * Nothing here falls back to less than was asked for.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { patiently } from "./ownership.js";
import { classify, Connection } from "./sqlite.js";

/** @typedef {{directory: string, vfs: string}} Files  Where a database is, on OPFS and for SQLite. */
/** @typedef {import("./protocol.js").Durability} Durability */
/** @typedef {import("./sqlite.js").Sqlite3} Sqlite3 */

// Older ones do not roll back a transaction that was killed after its cache spilled.
const OLDEST_VERSION = 3054001;
const FILE = "/durably.db";

/**
 * Open a database. Only for the holder of its place's lock.
 *
 * @param {Sqlite3} sqlite3
 * @param {Files} files
 * @param {Durability} durability
 * @param {() => boolean} [holds]  whether this worker still owns the files
 * @returns {Promise<Connection>}
 */
export async function openDatabase(sqlite3, files, durability, holds) {
  if (sqlite3.version.libVersionNumber < OLDEST_VERSION) {
    throw new DurablyError(
      "StoreNotDurable",
      `SQLite ${sqlite3.version.libVersion} can lose a rollback on OPFS; 3.54.1 or newer is needed`,
    );
  }
  const pool = await openPool(sqlite3, files);
  let connection;
  try {
    const db = new pool.OpfsSAHPoolDb(FILE);
    connection = new Connection(sqlite3, db, { release: () => pool.pauseVfs(), holds });
    promiseDurability(connection, durability);
    return connection;
  } catch (error) {
    const failure = openingFailure(sqlite3, error);
    connection?.close();
    throw failure;
  }
}

/**
 * @param {Sqlite3} sqlite3
 * @param {Files} files
 */
async function openPool(sqlite3, files) {
  try {
    return await patiently(() =>
      sqlite3.installOpfsSAHPoolVfs({
        name: files.vfs,
        directory: files.directory,
        // Without the first, a failed opening deletes the files; without the second, it can never be repeated.
        preserveOnInitFailure: true,
        ...{ forceReinitIfPreviouslyFailed: true },
      }),
    );
  } catch (error) {
    if (error instanceof DurablyError) throw error;
    const failure = failureOf(error);
    if (failure.name === "QuotaExceededError") {
      throw new DurablyError("StorageFull", "no room left to open the database", { cause: error });
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
  // WAL works without shared memory only for a connection that was exclusive before.
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
  if (code === "SQLITE_NOTADB") {
    return new DurablyError("NotADatabase", "the file is not a SQLite database; it was left as it is", { cause: error });
  }
  if (code === "SQLITE_FULL") {
    return new DurablyError("StorageFull", "no room left to open the database", { cause: error });
  }
  return new DurablyError("StoreUnavailable", `the database cannot be opened: ${code}: ${message}`, { cause: error });
}
