/**
 * Opening a database on the origin private file system, and proving that it keeps what it is given.
 *
 * Nothing here falls back to less than was asked for.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { classify, Connection } from "./sqlite.js";

/** @typedef {import("./place.js").Place} Place */
/** @typedef {import("./protocol.js").Durability} Durability */
/** @typedef {import("./sqlite.js").Sqlite3} Sqlite3 */

// Older ones do not roll back a transaction that was killed after its cache spilled.
const OLDEST_VERSION = 3054001;
const FILE = "/durably.db";
// The tab before this one can hold its file handles for a while after its lock is gone.
const HANDLES_PATIENCE_MS = 10_000;

/**
 * Open the database of a place. Only for the holder of the place's lock.
 *
 * @param {Sqlite3} sqlite3
 * @param {Place} place
 * @param {Durability} durability
 * @returns {Promise<Connection>}
 */
export async function openDatabase(sqlite3, place, durability) {
  if (sqlite3.version.libVersionNumber < OLDEST_VERSION) {
    throw new DurablyError(
      "StoreNotDurable",
      `SQLite ${sqlite3.version.libVersion} can lose a rollback on OPFS; 3.54.1 or newer is needed`,
    );
  }
  const pool = await openPool(sqlite3, place);
  let connection;
  try {
    const db = new pool.OpfsSAHPoolDb(FILE);
    connection = new Connection(sqlite3, db, () => pool.pauseVfs());
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
 * @param {Place} place
 */
async function openPool(sqlite3, place) {
  const deadline = performance.now() + HANDLES_PATIENCE_MS;
  for (let pause = 10; ; pause = Math.min(pause * 2, 500)) {
    try {
      return await answered(
        sqlite3.installOpfsSAHPoolVfs({
          name: place.vfs,
          directory: place.directory,
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
      if (failure.name !== "NoModificationAllowedError") {
        throw new DurablyError(
          "StoreUnavailable",
          `the browser gives this page no private file system (a private window?): ${failure.name}: ${failure.message}`,
          { cause: error },
        );
      }
      if (performance.now() > deadline) {
        throw new DurablyError("StoreUnavailable", "the files of the database stay locked by another tab or worker", {
          cause: error,
        });
      }
      await new Promise((resume) => setTimeout(resume, pause));
    }
  }
}

/**
 * @template T
 * @param {Promise<T>} request  to the file system
 * @returns {Promise<T>} rejects when there is no answer
 */
async function answered(request) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => {
      reject(new DurablyError("StoreUnavailable", "the browser's file system does not answer: reload the page"));
    }, HANDLES_PATIENCE_MS);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([request, silence]));
  } finally {
    clearTimeout(timer);
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
