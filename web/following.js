/**
 * Waiting for a run's end, and following what is stored of runs.
 *
 * What is pushed only says that there is something new; what it is, is read. So nothing is missed or told twice, whatever
 * happens to the worker meanwhile.
 *
 * @module
 */

import { failureOf } from "./failures.js";
import { late, Patience } from "./patience.js";

/** @typedef {import("./types.js").DurablyEvent} DurablyEvent */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./types.js").Status} Status */

// After these, a run that somebody waits for may have ended.
const RUN_CHANGES = ["run:complete", "run:fail", "run:cancel", "run:delete", "run:handover"];

const PAUSE_MS = 1_000;
const EVENTS_AT_ONCE = 200;

/** Somebody who waits for news of a run, or of all. */
class Watcher {
  /** The highest seq heard of since the last look; Infinity when everything may be different. */
  newest = 0;
  /** @type {PromiseWithResolvers<void>} */
  #news = Promise.withResolvers();

  /** @param {string | undefined} runId */
  constructor(runId) {
    this.runId = runId;
  }

  /** @param {number} seq */
  tell(seq) {
    this.newest = Math.max(this.newest, seq);
    this.#news.resolve();
  }

  /**
   * Resolves when there is something newer than `seq`, at once if it has been told already.
   *
   * @param {number} seq
   */
  async beyond(seq) {
    while (this.newest <= seq) {
      this.#news = Promise.withResolvers();
      await this.#news.promise;
    }
  }
}

export class Following {
  #request;
  #status;
  #onTypes;
  /** @type {Set<Watcher>} */
  #ends = new Set();
  /** @type {Set<Watcher>} */
  #journals = new Set();

  /**
   * @param {object} link
   * @param {(method: string, path: string, query: Record<string, string>, body: null, options: {signal: AbortSignal}) => Promise<any>} link.request
   * @param {() => Status} link.status
   * @param {() => void} link.onTypes  called when `types` has changed
   */
  constructor({ request, status, onTypes }) {
    this.#request = request;
    this.#status = status;
    this.#onTypes = onTypes;
  }

  /** The types of events that must be heard. */
  get types() {
    return [...(this.#ends.size > 0 ? RUN_CHANGES : []), ...(this.#journals.size > 0 ? ["journal"] : [])];
  }

  /** @param {{type: string, runId: string | null, seq: number | null}} event */
  hear({ type, runId, seq }) {
    if (type === "journal") {
      for (const watcher of this.#journals) if ([undefined, runId].includes(watcher.runId)) watcher.tell(seq ?? Infinity);
    } else if (RUN_CHANGES.includes(type)) {
      for (const watcher of this.#ends) if (watcher.runId === runId) watcher.tell(Infinity);
    }
  }

  /** Everybody looks again: there is another connection, or there will never be one. */
  lookAgain() {
    for (const watcher of [...this.#ends, ...this.#journals]) watcher.tell(Infinity);
  }

  /**
   * The run, once it is completed, failed or cancelled.
   *
   * @param {string} runId
   * @param {{signal?: AbortSignal, timeout?: number}} [limits]  `timeout` is for the whole wait
   * @returns {Promise<Run>}
   */
  async waitForRun(runId, limits = {}) {
    const watcher = new Watcher(runId);
    const patience = new Patience(limits, () => late(`run ${runId} has not ended within ${limits.timeout} ms`));
    this.#watch(this.#ends, watcher);
    try {
      for (;;) {
        watcher.newest = 0;
        /** @type {Run | undefined} */
        const run = await patience.race(this.#look("/run", { runId }, watcher, patience.signal));
        if (run?.isTerminal) return run;
        await patience.race(watcher.beyond(0));
      }
    } finally {
      patience.end();
      this.#unwatch(this.#ends, watcher);
    }
  }

  /**
   * The stored events behind the one with seq `after`, of a run or of all, and then those to come. Ends when the run does.
   *
   * @param {string} [runId]
   * @param {{after?: number, signal?: AbortSignal}} [options]
   * @returns {AsyncGenerator<DurablyEvent, void, void>}
   */
  async *events(runId, { after = 0, signal } = {}) {
    const watcher = new Watcher(runId);
    const patience = new Patience({ signal }, () => late("never"));
    this.#watch(this.#journals, watcher);
    let position = after;
    try {
      for (;;) {
        watcher.newest = 0;
        /** @type {Record<string, string>} */
        const query = { after: String(position), limit: String(EVENTS_AT_ONCE), ...(runId === undefined ? {} : { runId }) };
        /** @type {{events: DurablyEvent[], ended: boolean, next: number | null} | undefined} */
        const page = await patience.race(this.#look("/events", query, watcher, patience.signal));
        for (const event of page?.events ?? []) {
          signal?.throwIfAborted();
          position = event.seq ?? position;
          yield event;
        }
        if (page?.ended) return;
        if (page?.next) {
          position = page.next;
          continue;
        }
        await patience.race(watcher.beyond(position));
      }
    } finally {
      patience.end();
      this.#unwatch(this.#journals, watcher);
    }
  }

  /**
   * @param {Set<Watcher>} watchers
   * @param {Watcher} watcher
   */
  #watch(watchers, watcher) {
    watchers.add(watcher);
    if (watchers.size === 1) this.#onTypes();
  }

  /**
   * @param {Set<Watcher>} watchers
   * @param {Watcher} watcher
   */
  #unwatch(watchers, watcher) {
    watchers.delete(watcher);
    if (watchers.size === 0) this.#onTypes();
  }

  /**
   * @param {string} path
   * @param {Record<string, string>} query
   * @param {Watcher} watcher
   * @param {AbortSignal} signal
   * @returns {Promise<any>}  nothing when there was nobody to ask; the watcher is told when it is worth another look
   */
  async #look(path, query, watcher, signal) {
    try {
      return await this.#request("GET", path, query, null, { signal });
    } catch (error) {
      const { name } = failureOf(error);
      const isOver = ["closed", "failed"].includes(this.#status());
      // Whoever answers is busy with a step that does not let go, or cannot just now: that is no reason to give up.
      if (name === "TimeoutError") watcher.tell(Infinity);
      else if (name === "StoreBusy" && !isOver) setTimeout(() => watcher.tell(Infinity), PAUSE_MS);
      else if (this.#status() !== "starting") throw error;
      return undefined;
    }
  }
}
