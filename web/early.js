/**
 * What the worker that owns the database answers before Python is up: it stores triggers, and reads runs.
 *
 * @module
 */

import { isObject, isText, runsAsked } from "./asked.js";
import { DurablyError } from "./failures.js";
import { Inbox, only, transaction } from "./inbox.js";
import { PREFIX, Sealer } from "./sealing.js";
import { clientRun, filterOf, findRun, findRuns, NeedsEngine } from "./stored.js";

/** @typedef {import("./asked.js").Asked} Asked */
/** @typedef {import("./asked.js").Request} Request */
/** @typedef {import("./inbox.js").Entry} Entry */
/** @typedef {import("./sqlite.js").Connection} Connection */
/** @typedef {{runId: string, disposition: "created" | "idempotent"}} Made */

const FIND_SCHEMA = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durably_schema'";
const READ_VERSION = "SELECT coalesce(max(version), 0) FROM durably_schema";
const SELECT_BY_KEY = "SELECT id FROM durably_runs WHERE job_name = ? AND idempotency_key = ?";

// Runs that are stored, and those of which the journal still knows that they were deleted.
const SELECT_KNOWN = `
SELECT value, EXISTS (SELECT 1 FROM durably_runs WHERE id = value) FROM json_each(?)
WHERE EXISTS (SELECT 1 FROM durably_runs WHERE id = value) OR EXISTS (SELECT 1 FROM durably_journal WHERE run_id = value)
`;

/** What a page may try again. */
const STORE_ERRORS = ["StorageFull", "StoreUnavailable"];

/**
 * Answers from SQLite alone, until the engine takes over.
 *
 * Requests are answered one after the other, in the order in which they come. The engine may work on the same connection
 * meanwhile, as it does during `drain`.
 */
export class Early {
  #connection;
  #sealer;
  #inbox;
  #knownSchema;
  #now;
  /** @type {Promise<unknown>} the last answer that was begun */
  #turn = Promise.resolve();
  /** How many triggers came and are not answered yet. */
  #adding = 0;
  #over = false;
  /** @type {WeakMap<Entry, Asked[]>} */
  #asked = new WeakMap();

  /**
   * @param {Connection} connection  to a database whose schema is not newer than `knownSchema`
   * @param {Uint8Array[]} keys  the first seals, all open; none seals nothing
   * @param {number} knownSchema  the version whose tables are read here
   * @param {() => number} [now]  milliseconds since the epoch
   */
  constructor(connection, keys, knownSchema, now = Date.now) {
    this.#connection = connection;
    this.#sealer = new Sealer(keys);
    this.#inbox = new Inbox(connection, this.#sealer);
    this.#knownSchema = knownSchema;
    this.#now = now;
  }

  /**
   * Answer a request `{id, method, path, query, body}` with `{status, body}`. What a trigger asks for is stored when this resolves.
   *
   * @param {string} text
   * @returns {Promise<string | null>} `null` when only the engine can answer
   */
  async answer(text) {
    if (this.#over) return null;
    const receivedAt = this.#now();
    const request = parsed(text);
    if (request === null) return null;
    const asked = runsAsked(request, receivedAt);
    if (asked !== null) {
      this.#adding += 1;
      try {
        return await this.#inTurn(() => this.#trigger(text, request, receivedAt, asked));
      } finally {
        this.#adding -= 1;
      }
    }
    if (request.method !== "GET" || (request.path !== "/run" && request.path !== "/runs")) return null;
    return await this.#inTurn(async () => {
      try {
        return answered(200, await (request.path === "/run" ? this.#run(request) : this.#runs(request)));
      } catch {
        // Whatever it is, the engine finds the words for it.
        return null;
      }
    });
  }

  /**
   * Hand the stored requests to the engine, one after the other in the order in which they came. An entry is forgotten once it is
   * answered.
   *
   * Meanwhile `answer` goes on storing triggers, behind the others; they are handed over too. At the moment when nothing is left,
   * and no trigger is being stored, this is over: from then on every `answer` is `null`, so there is nothing that would be stored
   * and not handed over. The caller therefore sends to the engine what gets `null`, and does not have to switch at a certain moment.
   * What it has held back until then it sends first.
   *
   * Rejects with the error of a request that was answered with 500 or more, or with what happened to the database. That entry and
   * those behind it stay, triggers go on being stored, and this may be called again. So it may after a crash in the middle: the
   * engine knows a request that it has carried out by its id.
   *
   * @param {(request: string, receivedAt: number) => Promise<string>} admit  carries a request out; resolves to its answer
   */
  async drain(admit) {
    for (;;) {
      const [entry] = (await this.#inbox.list()).values();
      if (entry !== undefined) {
        const { status, body } = JSON.parse(await admit(entry.request, entry.receivedAt));
        if (status >= 500) throw new DurablyError(body?.name ?? "DurablyError", body?.error ?? `the engine answered ${status}`);
        await this.#inbox.remove(entry);
      } else if (this.#adding > 0) {
        await this.#turn;
      } else {
        this.#over = true;
        return;
      }
    }
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  #inTurn(work) {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }

  // -- triggers -----------------------------------------------------------------------------------------------------------------

  /**
   * @param {string} text
   * @param {Request} request
   * @param {number} receivedAt
   * @param {Asked[]} asked
   * @returns {Promise<string | null>}
   */
  async #trigger(text, request, receivedAt, asked) {
    try {
      const entries = await this.#inbox.list();
      const earlier = entries.get(request.id);
      // What was received first under this id is what counts.
      const made = this.#made(entries, earlier === undefined ? asked : this.#runsOf(earlier), request.id);
      if (made === null) return null;
      const isNew = made.some(({ disposition, stored }) => disposition === "created" && !stored);
      if (isNew) await this.#inbox.add(request.id, text, receivedAt);
      const answers = made.map(({ runId, disposition }) => ({ runId, disposition }));
      return answered(200, JSON.stringify(request.path === "/trigger" ? answers[0] : answers));
    } catch (error) {
      if (!(error instanceof DurablyError)) throw error;
      if (!STORE_ERRORS.includes(error.name)) return null;
      return answered(503, JSON.stringify({ name: error.name, error: error.message }));
    }
  }

  /**
   * What becomes of each run that a request asks for.
   *
   * @param {ReadonlyMap<string, Entry>} entries
   * @param {Asked[]} asked
   * @param {string} requestId
   * @returns {(Made & {stored: boolean})[] | null} `null` when only the engine knows
   */
  #made(entries, asked, requestId) {
    if (this.#sealer.seals && asked.some(hasReservedName)) return null;
    const hasRuns = (this.#version() ?? 0) > 0;
    /** @type {Map<unknown, unknown>} whether it is stored still, by id */
    const known = new Map();
    if (hasRuns) {
      const ids = JSON.stringify(asked.map(({ id }) => id));
      for (const [id, stored] of only(transaction(this.#connection, "read", [SELECT_KNOWN, [ids]]))) known.set(id, stored);
    }
    if ([...known.values()].includes(0)) return null;
    const keyed = new Map();
    for (const entry of asked.some(({ idempotencyKey }) => idempotencyKey !== null) ? entries.values() : []) {
      // Those that were received after this one do not matter to it.
      if (entry.id === requestId) break;
      for (const one of this.#runsOf(entry)) rememberKey(keyed, one);
    }
    return asked.map((one) => {
      const stored = known.has(one.id);
      const earlier = stored ? undefined : (hasRuns ? this.#byKey(one) : undefined) ?? keyed.get(keyOf(one));
      if (earlier !== undefined) return { runId: earlier, disposition: "idempotent", stored };
      rememberKey(keyed, one);
      return { runId: one.id, disposition: "created", stored };
    });
  }

  /**
   * @param {Asked} asked
   * @returns {string | undefined} the stored run that has its idempotency key
   */
  #byKey({ jobName, idempotencyKey }) {
    if (idempotencyKey === null) return undefined;
    const rows = only(transaction(this.#connection, "read", [SELECT_BY_KEY, [jobName, idempotencyKey]]));
    return /** @type {string | undefined} */ (rows[0]?.[0]);
  }

  /**
   * @param {Entry} entry
   * @returns {Asked[]}
   */
  #runsOf(entry) {
    let asked = this.#asked.get(entry);
    if (asked === undefined) {
      const request = parsed(entry.request);
      asked = (request && runsAsked(request, entry.receivedAt)) ?? [];
      this.#asked.set(entry, asked);
    }
    return asked;
  }

  // -- reading ------------------------------------------------------------------------------------------------------------------

  /** @param {Request} request */
  async #run({ query }) {
    const { runId, ...more } = query;
    if (!isText(runId) || Object.keys(more).length > 0) throw new NeedsEngine();
    this.#refuseReserved([runId]);
    const entries = await this.#inbox.list();
    const asked = this.#pending(entries).find(({ id }) => id === runId);
    const found = (this.#readable() ? findRun(this.#connection, runId) : undefined) ?? (asked && { id: runId, asked });
    if (found === undefined) throw new NeedsEngine();
    return clientRun(found, this.#sealer);
  }

  /** @param {Request} request */
  async #runs({ query }) {
    const filter = filterOf(query);
    this.#refuseReserved(Object.values(query).flat());
    const entries = await this.#inbox.list();
    // With no await from here on to the last row: what is read belongs together.
    const found = findRuns(this.#connection, this.#readable(), this.#pending(entries), filter);
    const runs = await Promise.all(found.map((one) => clientRun(one, this.#sealer)));
    return `[${runs.join(",")}]`;
  }

  /**
   * The runs that are asked for and not stored yet.
   *
   * @param {ReadonlyMap<string, Entry>} entries
   * @returns {Asked[]}
   */
  #pending(entries) {
    const asked = [...entries.values()].flatMap((entry) => {
      const runs = this.#runsOf(entry);
      // A request that cannot be read here must not be missing from a list.
      if (runs.length === 0) throw new NeedsEngine();
      return runs;
    });
    const made = this.#made(new Map(), asked, "");
    if (made === null) throw new NeedsEngine();
    return asked.filter((_, at) => made[at]?.disposition === "created" && !made[at].stored);
  }

  /**
   * Beside sealed values no name may look like one; the engine says so.
   *
   * @param {unknown[]} texts
   */
  #refuseReserved(texts) {
    if (this.#sealer.seals && texts.some(isReserved)) throw new NeedsEngine();
  }

  // -- the schema ---------------------------------------------------------------------------------------------------------------

  /** Whether there are runs to be read. Throws when they are kept in a way that is not known here. */
  #readable() {
    const version = this.#version();
    if (version === null || version === 0) return false;
    if (version !== this.#knownSchema) throw new NeedsEngine();
    return true;
  }

  /** @returns {number | null} `null` when the engine has never been here */
  #version() {
    if (only(transaction(this.#connection, "read", [FIND_SCHEMA, []])).length === 0) return null;
    return /** @type {number} */ (only(transaction(this.#connection, "read", [READ_VERSION, []]))[0]?.[0]);
  }
}

/**
 * @param {string} text
 * @returns {Request | null}
 */
function parsed(text) {
  // Otherwise it would not be stored as it is.
  if (!text.isWellFormed()) return null;
  try {
    const request = JSON.parse(text);
    return isObject(request) && isObject(request.query) ? /** @type {Request} */ (/** @type {unknown} */ (request)) : null;
  } catch {
    return null;
  }
}

/**
 * @param {number} status
 * @param {string} body  JSON text
 */
function answered(status, body) {
  return `{"status":${status},"body":${body}}`;
}

/** @param {Asked} asked */
function hasReservedName({ jobName, idempotencyKey, concurrencyKey }) {
  return [jobName, idempotencyKey, concurrencyKey].some(isReserved);
}

/** @param {unknown} text */
function isReserved(text) {
  return typeof text === "string" && text.startsWith(PREFIX);
}

/** @param {Asked} asked */
function keyOf({ jobName, idempotencyKey }) {
  return idempotencyKey === null ? null : JSON.stringify([jobName, idempotencyKey]);
}

/**
 * @param {Map<string, string>} keyed  the first run of each key
 * @param {Asked} asked
 */
function rememberKey(keyed, asked) {
  const key = keyOf(asked);
  if (key !== null && !keyed.has(key)) keyed.set(key, asked.id);
}
