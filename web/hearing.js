/**
 * Events for those who listen: each stored one exactly once, and in the order in which they come, also across a change of leader and a
 * lost connection.
 *
 * A live event is told as it comes. On a new connection the journal is read from behind what was told, while live events wait;
 * then they follow, without those that the journal had. Events that are not stored (`seq` is `null`) are told if they come.
 *
 * @module
 */

import { failureOf, invalid } from "./failures.js";

/** @typedef {import("./types.js").DurablyEvent} DurablyEvent */
/** @typedef {(event: any) => void} Listener */

/**
 * Who listens, and since when: by the seq known then, and by the clock, because on the worker's transport the seqs of events that
 * nobody listens to stay unknown.
 *
 * @typedef {{listener: Listener, seq: number, time: number}} Entry
 */

/**
 * Every type that the engine has; `durably_web/events.py` has the same.
 *
 * @type {readonly (keyof import("./types.js").EventDetails)[]}
 */
export const EVENT_TYPES = [
  "run:trigger",
  "run:coalesced",
  "run:leased",
  "run:lease-renewed",
  "run:waiting",
  "run:pause",
  "run:resume",
  "run:progress",
  "run:retry",
  "run:undo",
  "run:code-changed",
  "run:restart",
  "run:patched",
  "run:handover",
  "run:complete",
  "run:fail",
  "run:cancel",
  "run:delete",
  "step:start",
  "step:wait",
  "step:retry",
  "step:complete",
  "step:fail",
  "step:cancel",
  "step:unasked",
  "log:write",
  "schedule:skip",
  "worker:error",
  "worker:shutdown",
  "network:offline",
  "network:online",
  "storage:full",
  "storage:room",
  "storage:set-aside",
  "storage:cleared",
];

/**
 * What the page itself tells.
 *
 * @type {readonly (keyof import("./types.js").PageEventDetails)[]}
 */
export const PAGE_EVENT_TYPES = ["site:stored", "site:update"];

/** @type {readonly string[]} */
const KNOWN = [...EVENT_TYPES, ...PAGE_EVENT_TYPES];
/** @type {readonly string[]} */
const OF_PAGE = PAGE_EVENT_TYPES;

// Live events come out of order by those at most that one request changed, or one turn of the engine's event loop stored together.
const DISORDER = 4096;
const EVENTS_AT_ONCE = 200;
// The new connection is there, but what answers over it is not: it will be, or there will be another connection.
const PASSING = ["TimeoutError", "StoreUnavailable", "StoreBusy"];
const PAUSE_MS = 1_000;

export class Hearing {
  #request;
  #onTypes;
  #ownClock;
  /** @type {Map<string, Set<Entry>>} */
  #listeners = new Map();
  #wasConnected = false;
  /** Everything stored up to here has been told. */
  #floor = 0;
  /** Stored events beyond the floor that have been told. @type {Set<number>} */
  #told = new Set();
  #newest = 0;
  /** Live events that wait until the journal has been read. @type {DurablyEvent[] | undefined} */
  #queue;
  #connection = 0;

  /**
   * @param {object} link
   * @param {(method: string, path: string, query: Record<string, string>) => Promise<any>} link.request
   * @param {() => void} link.onTypes  called when `types` has changed
   * @param {boolean} link.ownClock  whether events carry the times of this machine's clock
   */
  constructor({ request, onTypes, ownClock }) {
    this.#request = request;
    this.#onTypes = onTypes;
    this.#ownClock = ownClock;
  }

  /** The types of events of the engine that somebody listens to. */
  get types() {
    return [...this.#listeners].flatMap(([type, { size }]) => (size > 0 && !OF_PAGE.includes(type) ? [type] : []));
  }

  /**
   * @param {string} type
   * @param {Listener} listener
   * @returns {() => void} unsubscribe
   */
  on(type, listener) {
    if (type !== "*" && !KNOWN.includes(type)) {
      throw invalid(`there is no event ${JSON.stringify(type)}; there are ${KNOWN.join(", ")}, and "*" for all`);
    }
    if (typeof listener !== "function") throw invalid(`the listener for ${type} is a function, not ${listener}`);
    const entry = { listener, seq: this.#newest, time: Date.now() };
    const entries = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, entries.add(entry));
    if (entries.size === 1) this.#onTypes();
    return () => {
      if (entries.delete(entry) && entries.size === 0) this.#onTypes();
    };
  }

  /**
   * A live event has come.
   *
   * @param {DurablyEvent} event
   */
  hear(event) {
    if (this.#queue) this.#queue.push(event);
    else this.#tellLive(event);
  }

  /**
   * There is a connection that was not there before.
   *
   * @param {number} seq  that of the last stored event
   * @param {boolean} [fresh]  nobody who listens now listened while there was none
   */
  connected(seq, fresh = false) {
    const connection = ++this.#connection;
    // Seqs never go back, unless this is another database: nothing that it holds has happened meanwhile.
    const same = this.#wasConnected && !fresh && seq >= this.#newest;
    if (same && this.types.length > 0) {
      this.#newest = seq;
      this.#queue ??= [];
      void this.#catchUp(connection);
      return;
    }
    this.#wasConnected = true;
    this.#floor = this.#newest = seq;
    this.#told.clear();
    this.#flush();
  }

  /** Nothing will come any more. */
  close() {
    this.#connection += 1;
    this.#queue = undefined;
  }

  /** @param {number} connection  the one for which this happens; the next begins anew from where this one has got to */
  async #catchUp(connection) {
    for (let full = true; full; ) {
      try {
        const query = { after: String(this.#floor), limit: String(EVENTS_AT_ONCE) };
        /** @type {{events: DurablyEvent[], next: number | null}} */
        const { events, next } = await this.#request("GET", "/events", query);
        if (connection !== this.#connection) return;
        for (const event of events) this.#tellPast(event);
        // Of events that this page may not see, nothing but the seq is told.
        this.#floor = next ?? this.#floor;
        full = Boolean(next);
      } catch (error) {
        if (connection !== this.#connection) return;
        if (!PASSING.includes(failureOf(error).name)) {
          console.error("durably-web: events since the connection was lost cannot be read:", error);
          break;
        }
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        if (connection !== this.#connection) return;
      }
    }
    this.#flush();
  }

  #flush() {
    const queue = this.#queue ?? [];
    this.#queue = undefined;
    for (const event of queue) this.#tellLive(event);
  }

  /** @param {DurablyEvent} event */
  #tellLive(event) {
    const { seq } = event;
    if (seq !== null) {
      if (seq <= this.#floor || this.#told.has(seq)) return;
      this.#told.add(seq);
      this.#newest = Math.max(this.#newest, seq);
      this.#floor = Math.max(this.#floor, this.#newest - DISORDER);
      if (this.#told.size > 2 * DISORDER) this.#forget();
    }
    this.#tell(event, () => true);
  }

  /**
   * Of what the journal has, a listener is told what happened since it listens.
   *
   * @param {DurablyEvent} event
   */
  #tellPast(event) {
    const seq = event.seq ?? 0;
    const known = this.#told.delete(seq);
    this.#floor = seq;
    this.#newest = Math.max(this.#newest, seq);
    if (known) return;
    const then = this.#ownClock ? Date.parse(event.timestamp) : Infinity;
    this.#tell(event, (entry) => seq > entry.seq && then >= entry.time);
  }

  #forget() {
    for (const seq of this.#told) if (seq <= this.#floor) this.#told.delete(seq);
  }

  /**
   * @param {DurablyEvent} event
   * @param {(entry: Entry) => boolean} isFor
   */
  #tell(event, isFor) {
    for (const type of [event.type, "*"]) {
      // As they are now: who begins to listen while this is told has not listened when it happened.
      for (const entry of [...(this.#listeners.get(type) ?? [])]) if (isFor(entry)) call(entry.listener, event);
    }
  }
}

/**
 * Call what the page gave us; what it raises is its own affair.
 *
 * @template {unknown[]} A
 * @param {(...details: A) => void} listener
 * @param {A} details
 */
export function call(listener, ...details) {
  try {
    listener(...details);
  } catch (error) {
    console.error(error);
  }
}
