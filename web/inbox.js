/**
 * Requests that are stored and not yet carried out: what a page asked for before there was an engine to do it.
 *
 * The table is made with the first of them. Requests are kept as the engine keeps the values of users: sealed, when there is a
 * key. Ids and instants stay readable.
 *
 * @module
 */

import { DurablyError } from "./failures.js";

/** @typedef {import("./sealing.js").Sealer} Sealer */
/** @typedef {import("./sqlite.js").Connection} Connection */
/** @typedef {import("./values.js").WireValue} WireValue */

/**
 * @typedef {object} Entry
 * @property {number} number  Grows: the order in which the requests were received.
 * @property {string} id  The request's.
 * @property {string} request  Its text.
 * @property {number} receivedAt  Milliseconds since the epoch.
 */

const FIND = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durably_inbox'";

const CREATE = `
CREATE TABLE IF NOT EXISTS durably_inbox (
    number INTEGER PRIMARY KEY,
    id TEXT UNIQUE NOT NULL,
    request TEXT NOT NULL,
    received_at INTEGER NOT NULL
) STRICT
`;

const INSERT = `
INSERT INTO durably_inbox (id, request, received_at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING number
`;

const SELECT = "SELECT number, id, request, received_at FROM durably_inbox ORDER BY number";

const DELETE = "DELETE FROM durably_inbox WHERE number = ?";

/** The requests of one database. Nobody else may change its table while this is in use: what was read is remembered. */
export class Inbox {
  #connection;
  #sealer;
  /** @type {Promise<Map<string, Entry>> | undefined} by id, in order */
  #entries;
  #created = false;

  /**
   * @param {Connection} connection
   * @param {Sealer} sealer
   */
  constructor(connection, sealer) {
    this.#connection = connection;
    this.#sealer = sealer;
  }

  /**
   * All entries in order, by their ids. The same map each time, and as it stands: read it, and change nothing. Rejects with
   * `DecryptionFailed` or as `transaction` throws; then the next call tries again.
   *
   * @returns {Promise<ReadonlyMap<string, Entry>>}
   */
  list() {
    return this.#load();
  }

  /**
   * Store a request, in a transaction of its own. It is committed when this resolves. An id that is there already changes nothing.
   * Rejects as `list` does, and with `StorageFull`; then nothing was stored.
   *
   * @param {string} id
   * @param {string} request
   * @param {number} receivedAt
   */
  async add(id, request, receivedAt) {
    const entries = await this.#load();
    if (entries.has(id)) return;
    /** @type {[string, unknown[]]} */
    const insert = [INSERT, [id, await this.#sealer.seal(request), receivedAt]];
    const rows = this.#created
      ? transaction(this.#connection, "write", insert)[0]
      : transaction(this.#connection, "write", [CREATE, []], insert)[1];
    this.#created = true;
    const number = /** @type {number | undefined} */ (rows?.[0]?.[0]);
    if (number !== undefined) entries.set(id, { number, id, request, receivedAt });
  }

  /**
   * Forget a request. Safe to repeat. Rejects as `add` does; then it is still there.
   *
   * @param {Entry} entry
   */
  async remove(entry) {
    const entries = await this.#load();
    transaction(this.#connection, "write", [DELETE, [entry.number]]);
    entries.delete(entry.id);
  }

  #load() {
    if (this.#entries === undefined) {
      const loading = this.#read();
      this.#entries = loading;
      loading.catch(() => {
        this.#entries = undefined;
      });
    }
    return this.#entries;
  }

  /** @returns {Promise<Map<string, Entry>>} */
  async #read() {
    /** @type {Map<string, Entry>} */
    const entries = new Map();
    this.#created = only(transaction(this.#connection, "read", [FIND, []])).length > 0;
    if (!this.#created) return entries;
    const rows = only(transaction(this.#connection, "read", [SELECT, []]));
    for (const [number, id, request, receivedAt] of /** @type {[number, string, string, number][]} */ (rows)) {
      entries.set(id, { number, id, request: await this.#sealer.open(request), receivedAt });
    }
    return entries;
  }
}

/**
 * Run statements as one transaction, and give the rows of each. Throws a DurablyError with the engine's name for what happened.
 *
 * @param {Connection} connection
 * @param {"read" | "write"} mode
 * @param {[string, unknown[]][]} statements
 * @returns {WireValue[][][]}
 */
export function transaction(connection, mode, ...statements) {
  /** @type {{rows?: WireValue[][][], error?: import("./sqlite.js").BatchFailure}} */
  const reply = JSON.parse(connection.runBatch(JSON.stringify({ mode, statements })));
  if (reply.error !== undefined) {
    const { code, message } = reply.error;
    throw new DurablyError(code === "SQLITE_FULL" ? "StorageFull" : "StoreUnavailable", `${code}: ${message}`);
  }
  return /** @type {WireValue[][][]} */ (reply.rows);
}

/**
 * The rows of the only statement.
 *
 * @param {WireValue[][][]} results
 */
export function only(results) {
  return /** @type {WireValue[][]} */ (results[0]);
}
