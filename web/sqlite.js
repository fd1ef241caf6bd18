/**
 * SQLite: loading it, and running batches on a connection.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { decode, encodeBytes, encodeFloat, encodeInteger, Float } from "./values.js";

/** @typedef {import("@sqlite.org/sqlite-wasm").Sqlite3Static} Sqlite3 */
/** @typedef {import("@sqlite.org/sqlite-wasm").Database} Database */
/** @typedef {import("@sqlite.org/sqlite-wasm").PreparedStatement} Statement */
/** @typedef {import("./values.js").WireValue} WireValue */

/**
 * @typedef {{mode: "read" | "write", statements: [string, unknown[]][], frees?: boolean}} BatchMessage  `frees`: it is a way out of
 *   a full disk.
 * @typedef {{code: string, message: string, index: number | null}} BatchFailure
 */

const STATEMENTS_KEPT = 128;

// So many pages in the log are enough to work with, without room for more.
const LOG_PAGES = 256;

const NOT_OWNER = { code: "NOT_OWNER", message: "another tab has taken the database over" };

export const NO_ROOM = "no room left: delete runs (purgeRuns), ask the browser for more (persist), or free space on this device";

/** What the file system said last; SQLite itself only passes on that there was an error. */
let storageFailure = /** @type {unknown} */ (null);

/**
 * Download and start SQLite WASM.
 *
 * @param {string} runtime  URL of the folder that has `sqlite/`
 * @returns {Promise<Sqlite3>}
 */
export async function loadSqlite(runtime) {
  const scope = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (globalThis));
  scope.sqlite3ApiConfig = {
    // Those two would start workers that only pages with special headers could use.
    disable: { vfs: { opfs: true, "opfs-vfs": true, "opfs-wl": true, kvvfs: true } },
    log() {},
    warn() {},
    debug() {},
    /** @param {unknown[]} details */
    error(...details) {
      storageFailure = details.find((detail) => detail instanceof Error || detail instanceof DOMException) ?? null;
    },
  };
  const url = new URL("sqlite/index.mjs", runtime).href;
  try {
    // A plain file of the runtime, whatever bundled this one: bundlers leave the import as it is.
    const { default: init } = await import(/* @vite-ignore */ /* webpackIgnore: true */ url);
    return await init();
  } catch (error) {
    throw new DurablyError("StoreUnavailable", `SQLite could not be loaded from ${url}: ${failureOf(error).message}`, {
      cause: error,
    });
  }
}

/** Signals a result code of SQLite's with its message. */
class ResultError extends Error {
  /**
   * @param {number} resultCode
   * @param {string} message
   */
  constructor(resultCode, message) {
    super(message);
    this.resultCode = resultCode;
  }
}

/** @param {{rows: WireValue[][][]} | {error: BatchFailure}} reply */
function metFullDisk(reply) {
  return "error" in reply && reply.error.code === "SQLITE_FULL";
}

/**
 * What went wrong, by the database's own name for it.
 *
 * @param {Sqlite3} sqlite3
 * @param {unknown} error
 * @returns {{code: string, message: string}}
 */
export function classify(sqlite3, error) {
  const message = failureOf(error).message.replace(/^SQLITE_\w+: sqlite3 result code \d+: /, "");
  const resultCode = /** @type {{resultCode?: number}} */ (error).resultCode;
  if (resultCode === undefined) return { code: "INVALID_VALUE", message };
  const { capi } = sqlite3;
  const primary = resultCode & 0xff;
  if (primary !== capi.SQLITE_CONSTRAINT && storageFailure !== null && isFull(storageFailure)) {
    // A full disk comes out of SQLite as an I/O error: only the file system knew.
    return { code: "SQLITE_FULL", message: NO_ROOM };
  }
  const code = capi.sqlite3_js_rc_str(resultCode) || capi.sqlite3_js_rc_str(primary) || `SQLITE_${resultCode}`;
  return { code, message };
}

/** @param {unknown} error */
function isFull(error) {
  const { name, message } = failureOf(error);
  // The second is what the pool says of a write() that wrote less than all, and only a full disk does that.
  return name === "QuotaExceededError" || message.startsWith("Unknown write() failure");
}

/** One database, and the statements prepared on it. */
export class Connection {
  #sqlite3;
  #db;
  #release;
  #holds;
  #onDamage;
  /** @type {import("./reserve.js").Reserve | undefined} */
  #reserve;
  /** Whether something met a full disk since room was last made: it may still wait, also while smaller writes go through. */
  #lacksRoom = false;
  #text = new TextDecoder("utf-8", { ignoreBOM: true });
  /** @type {Map<string, Statement>} least recently used first */
  #statements = new Map();

  /**
   * @param {Sqlite3} sqlite3
   * @param {Database} db
   * @param {object} [owner]
   * @param {() => void} [owner.release]  called when the database is closed
   * @param {() => boolean} [owner.holds]  whether the files are still ours
   * @param {(reason: string) => void} [owner.onDamage]  called when a batch found the file damaged; may close nothing
   */
  constructor(sqlite3, db, { release = () => {}, holds = () => true, onDamage = () => {} } = {}) {
    this.#onDamage = onDamage;
    this.#sqlite3 = sqlite3;
    this.#db = db;
    this.#release = release;
    this.#holds = holds;
  }

  /** How many statements are kept prepared. */
  get prepared() {
    return this.#statements.size;
  }

  /**
   * From now on there is room in reserve for what frees room.
   *
   * @param {import("./reserve.js").Reserve} reserve
   */
  keep(reserve) {
    this.#reserve = reserve;
    void reserve.fill();
  }

  /**
   * Run the statements of a batch as one transaction: all of them, or none.
   *
   * @param {string} text  a `BatchMessage`
   * @returns {string} `{rows}` with the rows of each statement, or `{error: BatchFailure}`
   */
  runBatch(text) {
    // A successor reads these files as they are after one more batch at most.
    if (!this.#holds()) return JSON.stringify({ error: { ...NOT_OWNER, index: null } });
    /** @type {BatchMessage} */
    let batch;
    try {
      batch = JSON.parse(text);
    } catch (error) {
      return JSON.stringify({ error: { ...classify(this.#sqlite3, error), index: null } });
    }
    // Whether a deletion fits in or not: what waits needs the log to begin again, and that needs room as well.
    if (batch.frees && this.#lacksRoom) this.#reserve?.release();
    let reply = this.#run(batch);
    if (metFullDisk(reply) && batch.frees && this.#reserve?.release()) reply = this.#run(batch);
    this.#lacksRoom ||= metFullDisk(reply);
    if ("error" in reply) {
      if (/^SQLITE_(CORRUPT|NOTADB)/.test(reply.error.code)) this.#onDamage(`${reply.error.code}: ${reply.error.message}`);
    } else {
      // What was committed too late is in no copy: nobody may be told of it.
      if (batch.mode === "write" && !this.#holds()) return JSON.stringify({ error: { ...NOT_OWNER, index: null } });
      if (batch.frees) this.#makeRoom();
    }
    return JSON.stringify(reply);
  }

  /**
   * @param {BatchMessage} batch
   * @returns {{rows: WireValue[][][]} | {error: BatchFailure}}
   */
  #run({ mode, statements }) {
    storageFailure = null;
    /** @type {number | null} */
    let index = null;
    let inTransaction = false;
    try {
      if (statements.length > 1) {
        // Taking the write lock first means never having to upgrade. One statement is a transaction by itself.
        this.query(mode === "write" ? "BEGIN IMMEDIATE" : "BEGIN");
        inTransaction = true;
      }
      /** @type {WireValue[][][]} */
      const results = [];
      for (index = 0; index < statements.length; index++) {
        const [sql, params] = /** @type {[string, unknown[]]} */ (statements[index]);
        results.push(this.query(sql, params));
      }
      index = null;
      if (inTransaction) this.query("COMMIT");
      inTransaction = false;
      return { rows: results };
    } catch (error) {
      const failure = { ...classify(this.#sqlite3, error), index };
      if (inTransaction) this.#rollback();
      return { error: failure };
    }
  }

  /**
   * Something was deleted: let its pages, and those of the log, be used again, and keep room in reserve again. Pages that are free
   * stay in the file; what is written next goes there.
   */
  #makeRoom() {
    if (!this.#reserve || this.#reserve.isFilled) return;
    try {
      const [, pages] = this.query("PRAGMA wal_checkpoint(RESTART)")[0] ?? [];
      this.#lacksRoom = false;
      // A short log would have to grow, and there may be no other room for that.
      if (Number(pages) >= LOG_PAGES) void this.#reserve.fill();
    } catch {
      // The next deletion tries again.
    }
  }

  /**
   * @param {string} sql  one statement
   * @param {unknown[]} [params]  as they came over the wire
   * @returns {WireValue[][]}
   */
  query(sql, params = []) {
    const { capi } = this.#sqlite3;
    const statement = this.#prepare(sql);
    const pointer = /** @type {number} */ (statement.pointer);
    try {
      if (params.length !== statement.parameterCount) {
        throw new ResultError(
          capi.SQLITE_RANGE,
          `the statement has ${statement.parameterCount} parameters, and ${params.length} were given`,
        );
      }
      for (let at = 0; at < params.length; at++) this.#bind(statement, at + 1, decode(params[at]));
      const rows = [];
      for (;;) {
        const outcome = capi.sqlite3_step(pointer);
        if (outcome === capi.SQLITE_DONE) return rows;
        if (outcome !== capi.SQLITE_ROW) throw new ResultError(outcome, capi.sqlite3_errmsg(this.#db));
        const row = [];
        // Counted now: the first step may have prepared the statement again, for a new schema.
        const columns = rows[0]?.length ?? capi.sqlite3_column_count(pointer);
        for (let column = 0; column < columns; column++) row.push(this.#column(pointer, column));
        rows.push(row);
      }
    } finally {
      capi.sqlite3_reset(pointer);
      if (params.length > 0) capi.sqlite3_clear_bindings(pointer);
    }
  }

  /**
   * The first column of each row of a statement, as bytes. All of it is read before anything else can happen.
   *
   * @param {string} sql
   * @param {(bytes: Uint8Array) => void} onBytes  may keep them
   */
  eachBlob(sql, onBytes) {
    const { capi, wasm } = this.#sqlite3;
    const statement = this.#prepare(sql);
    const pointer = /** @type {number} */ (statement.pointer);
    try {
      for (;;) {
        const outcome = capi.sqlite3_step(pointer);
        if (outcome === capi.SQLITE_DONE) return;
        if (outcome !== capi.SQLITE_ROW) throw new ResultError(outcome, capi.sqlite3_errmsg(this.#db));
        const start = Number(capi.sqlite3_column_blob(pointer, 0));
        onBytes(wasm.heap8u().slice(start, start + capi.sqlite3_column_bytes(pointer, 0)));
      }
    } finally {
      capi.sqlite3_reset(pointer);
    }
  }

  /** Whether nothing in the file is damaged. Reads all of it. */
  isWhole() {
    try {
      return this.query("PRAGMA integrity_check(1)")[0]?.[0] === "ok";
    } catch {
      return false;
    }
  }

  /** The version of the schema that is there; 0 when there is none. */
  schemaVersion() {
    const there = this.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durably_schema'").length > 0;
    return there ? Number(this.query("SELECT coalesce(max(version), 0) FROM durably_schema")[0]?.[0]) : 0;
  }

  /** The highest seq of a stored event; 0 when there is none. */
  lastSeq() {
    if (this.schemaVersion() === 0) return 0;
    return Number(this.query("SELECT coalesce(max(seq), 0) FROM durably_journal")[0]?.[0]);
  }

  /** Release the database and its files; safe to call twice. */
  close() {
    if (!this.#db.isOpen()) return;
    for (const statement of this.#statements.values()) statement.finalize();
    this.#statements.clear();
    this.#db.close();
    this.#release();
  }

  /** @param {string} sql */
  #prepare(sql) {
    let statement = this.#statements.get(sql);
    if (statement !== undefined) {
      this.#statements.delete(sql);
    } else {
      const { capi } = this.#sqlite3;
      statement = this.#db.prepare(sql);
      const rest = sql.slice(capi.sqlite3_sql(/** @type {number} */ (statement.pointer)).length);
      if (!/^[\s;]*$/.test(rest)) {
        statement.finalize();
        throw new ResultError(capi.SQLITE_MISUSE, `one statement at a time, and this is left over: ${rest.trim()}`);
      }
      if (this.#statements.size >= STATEMENTS_KEPT) {
        const [oldest, forgotten] = /** @type {[string, Statement]} */ (this.#statements.entries().next().value);
        this.#statements.delete(oldest);
        forgotten.finalize();
      }
    }
    this.#statements.set(sql, statement);
    return statement;
  }

  /**
   * @param {Statement} statement
   * @param {number} at
   * @param {import("./values.js").Value} value
   */
  #bind(statement, at, value) {
    if (value instanceof Float) {
      // bind() would store 1.0 as an integer.
      this.#sqlite3.capi.sqlite3_bind_double(/** @type {number} */ (statement.pointer), at, value.value);
    } else {
      statement.bind(at, value);
    }
  }

  /**
   * @param {number} pointer  of a statement that has a row
   * @param {number} column
   * @returns {WireValue}
   */
  #column(pointer, column) {
    const { capi, wasm } = this.#sqlite3;
    switch (capi.sqlite3_column_type(pointer, column)) {
      case capi.SQLITE_NULL:
        return null;
      case capi.SQLITE_INTEGER:
        return encodeInteger(capi.sqlite3_column_int64(pointer, column));
      case capi.SQLITE_FLOAT:
        return encodeFloat(capi.sqlite3_column_double(pointer, column));
      case capi.SQLITE_TEXT: {
        // Not sqlite3_column_text(), which ends at the first NUL.
        const start = capi.sqlite3_column_blob(pointer, column);
        const size = capi.sqlite3_column_bytes(pointer, column);
        return size === 0 ? "" : this.#text.decode(wasm.heap8u().subarray(Number(start), Number(start) + size));
      }
      default: {
        const start = capi.sqlite3_column_blob(pointer, column);
        const size = capi.sqlite3_column_bytes(pointer, column);
        return encodeBytes(wasm.heap8u().slice(Number(start), Number(start) + size));
      }
    }
  }

  #rollback() {
    // Some errors (a full disk) have ended the transaction already.
    if (this.#sqlite3.capi.sqlite3_get_autocommit(this.#db) !== 0) return;
    try {
      this.query("ROLLBACK");
    } catch {
      // The error that led here is the one to report.
    }
  }
}
