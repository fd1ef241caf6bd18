/**
 * durably_web on a page: start the worker, ask it for things, hear what happens.
 *
 *     import { createDurably } from "./durably-web/client.js";
 *
 *     const durably = await createDurably({ jobs: "./jobs.py", database: "app" });
 *     const run = await durably.trigger("import_csv", { text });
 *     const { output } = await durably.waitForRun(run.id);
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { Link } from "./link.js";

export { DurablyError };

/** @typedef {import("./link.js").DurablyEvent} DurablyEvent */
/** @typedef {import("./link.js").Status} Status */
/** @typedef {import("./link.js").StatusDetail} StatusDetail */

/**
 * @typedef {object} Options
 * @property {string | URL | (string | URL)[]} jobs  Job files (`.py`), relative to the page.
 * @property {string} [database]  Each name is a database of its own.
 * @property {string[]} [requirements]  Wheels (relative to the page) or package names that the job files import, in this order:
 *   what a wheel needs comes before it.
 * @property {"full" | "relaxed"} [durability]  `full`: what was acknowledged survives a power cut; `relaxed`: any crash of the tab.
 * @property {string} [base]  The path that this site owns on its origin; by default the folder above this file's.
 * @property {string | URL} [runtime]  The folder with Pyodide, SQLite and the wheels; by default this file's.
 * @property {number} [requestTimeout]  Milliseconds until an unanswered request rejects with `TimeoutError`.
 * @property {(status: Status, detail: StatusDetail) => void} [onStatus]
 */

/**
 * @typedef {object} TriggerOptions
 * @property {string} [idempotencyKey]  The same key gives the run that it gave first.
 * @property {Record<string, string>} [labels]
 */

/**
 * @typedef {object} RunFilter
 * @property {string} [jobName]
 * @property {string} [status]
 * @property {Record<string, string>} [labels]
 * @property {number} [limit]
 * @property {number} [offset]
 */

/**
 * @typedef {object} Run
 * @property {string} id
 * @property {string} jobName
 * @property {"pending" | "leased" | "waiting" | "completed" | "failed" | "cancelled"} status
 * @property {any} input
 * @property {any} output
 * @property {string | null} error
 * @property {Record<string, string>} labels
 * @property {{current: number, total?: number, message?: string} | null} progress
 * @property {string} createdAt
 * @property {string | null} startedAt
 * @property {string | null} completedAt
 * @property {number} stepCount
 * @property {boolean} isTerminal
 * @property {boolean} isActive
 */

/**
 * @typedef {object} JobHandle
 * @property {(input?: unknown, options?: TriggerOptions) => Promise<{id: string, disposition: string}>} trigger
 * @property {(input?: unknown, options?: TriggerOptions & {timeout?: number}) => Promise<any>} triggerAndWait
 */

// After these, a run that somebody waits for may have ended.
const RUN_CHANGES = ["run:complete", "run:fail", "run:cancel", "run:delete"];

/**
 * Start the engine of this page. Resolves when the jobs run here, or when it is known that they run in another tab;
 * rejects with an error that names the cause when they can run in neither.
 *
 * @param {Options} options
 * @returns {Promise<Durably>}
 */
export async function createDurably(options) {
  const durably = new Durably(options);
  await durably.started;
  return durably;
}

/** The engine as a page sees it. Made by `createDurably`. */
export class Durably {
  #link;
  /** @type {Map<string, Set<(event: DurablyEvent) => void>>} */
  #listeners = new Map();
  /** @type {Set<{runId: string, look: () => void}>} */
  #waiting = new Set();

  /** @param {Options} options */
  constructor({
    jobs,
    database = "default",
    requirements = [],
    durability = "full",
    base = new URL("..", import.meta.url).pathname,
    runtime = new URL(".", import.meta.url),
    requestTimeout = 60_000,
    onStatus = () => {},
  }) {
    const absolute = (/** @type {string | URL} */ url) => new URL(url, document.baseURI).href;
    const boot = {
      jobs: [jobs].flat().map(absolute),
      database,
      base,
      runtime: absolute(runtime).replace(/\/?$/, "/"),
      requirements: requirements.map((wheel) => (/[/]|\.whl$/.test(wheel) ? absolute(wheel) : wheel)),
      durability,
    };
    this.#link = new Link(boot, {
      events: RUN_CHANGES,
      requestTimeout,
      onEvent: (event) => this.#dispatch(event),
      onStatus: (status, detail) => {
        call(onStatus, status, detail);
        if (status !== "starting") for (const { look } of [...this.#waiting]) look();
      },
    });
  }

  /** Resolves when it is known whether the jobs run here; rejects when the start failed. */
  get started() {
    return this.#link.started;
  }

  /** @returns {Status} */
  get status() {
    return this.#link.status;
  }

  /**
   * `jobs.<name>.trigger(input)`
   *
   * @type {Record<string, JobHandle>}
   */
  jobs = new Proxy(/** @type {Record<string, JobHandle>} */ ({}), {
    get: (_, name) =>
      typeof name === "string"
        ? {
            /** @type {JobHandle["trigger"]} */
            trigger: (input, options) => this.trigger(name, input, options),
            /** @type {JobHandle["triggerAndWait"]} */
            triggerAndWait: (input, options) => this.triggerAndWait(name, input, options),
          }
        : undefined,
  });

  /**
   * Ask for a run of a job. The run is stored when this resolves.
   *
   * @param {string} jobName
   * @param {unknown} [input]
   * @param {TriggerOptions} [options]
   * @returns {Promise<{id: string, disposition: string}>}
   */
  async trigger(jobName, input = {}, { idempotencyKey, labels } = {}) {
    const { runId, disposition } = await this.#link.request("POST", "/trigger", {}, { jobName, input, idempotencyKey, labels });
    return { id: runId, disposition };
  }

  /**
   * Trigger, wait, and give the run's output. Rejects with `RunFailed` or `RunCancelled`.
   *
   * @param {string} jobName
   * @param {unknown} [input]
   * @param {TriggerOptions & {timeout?: number}} [options]
   * @returns {Promise<any>}
   */
  async triggerAndWait(jobName, input = {}, { timeout, ...options } = {}) {
    const { id } = await this.trigger(jobName, input, options);
    const run = await this.waitForRun(id, { timeout });
    if (run.status === "failed") throw new DurablyError("RunFailed", run.error ?? `run ${id} failed`);
    if (run.status === "cancelled") throw new DurablyError("RunCancelled", `run ${id} was cancelled`);
    return run.output;
  }

  /**
   * @param {string} runId
   * @returns {Promise<Run | null>} `null` for an unknown id
   */
  async getRun(runId) {
    try {
      return await this.#link.request("GET", "/run", { runId });
    } catch (error) {
      if (failureOf(error).name === "NotFound") return null;
      throw error;
    }
  }

  /**
   * @param {RunFilter} [filter]
   * @returns {Promise<Run[]>}
   */
  getRuns({ labels = {}, ...filter } = {}) {
    /** @type {Record<string, string>} */
    const query = {};
    for (const [key, value] of Object.entries(filter)) if (value !== undefined) query[key] = String(value);
    for (const [key, value] of Object.entries(labels)) query[`label.${key}`] = value;
    return this.#link.request("GET", "/runs", query);
  }

  /**
   * @param {string} runId
   * @returns {Promise<{name: string, status: string, output: any, error: string | null, attempt: number, startedAt: string, completedAt: string}[]>}
   */
  getSteps(runId) {
    return this.#link.request("GET", "/steps", { runId });
  }

  /**
   * @param {string} runId
   * @returns {Promise<{level: string, message: string, data: Record<string, any>, stepName: string | null, createdAt: string}[]>}
   */
  getLogs(runId) {
    return this.#link.request("GET", "/logs", { runId });
  }

  /**
   * The run, once it is completed, failed or cancelled.
   *
   * @param {string} runId
   * @param {{timeout?: number}} [options]  milliseconds; without it, as long as it takes
   * @returns {Promise<Run>}
   */
  waitForRun(runId, { timeout } = {}) {
    return new Promise((resolve, reject) => {
      const look = async () => {
        try {
          const run = await this.getRun(runId);
          if (run === null) end(() => reject(new DurablyError("NotFound", `there is no run ${runId}`)));
          else if (run.isTerminal) end(() => resolve(run));
        } catch (error) {
          // A worker that is being started again looks again when it is up.
          if (this.status !== "starting") end(() => reject(error));
        }
      };
      const waiter = { runId, look };
      const timer =
        timeout === undefined
          ? undefined
          : setTimeout(() => {
              end(() => reject(new DurablyError("TimeoutError", `run ${runId} has not ended within ${timeout} ms`)));
            }, timeout);
      /** @param {() => void} settle */
      const end = (settle) => {
        clearTimeout(timer);
        this.#waiting.delete(waiter);
        settle();
      };
      this.#waiting.add(waiter);
      void look();
    });
  }

  /** @param {string} runId */
  async cancel(runId) {
    await this.#link.request("POST", "/cancel", { runId });
  }

  /**
   * Let the same failed or cancelled run go on from its first step without a result.
   *
   * @param {string} runId
   */
  async retry(runId) {
    await this.#link.request("POST", "/retry", { runId });
  }

  /**
   * A new run with the same input and labels.
   *
   * @param {string} runId
   * @returns {Promise<{id: string}>}
   */
  async retrigger(runId) {
    const answer = await this.#link.request("POST", "/retrigger", { runId });
    return { id: answer.runId };
  }

  /** @param {string} runId */
  async deleteRun(runId) {
    await this.#link.request("DELETE", "/run", { runId });
  }

  /**
   * Call `listener` for every event of a type, or of all with `"*"`.
   *
   * @param {string} type
   * @param {(event: DurablyEvent) => void} listener
   * @returns {() => void} unsubscribe
   */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    if (listeners.size === 1) this.#listen();
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#listen();
    };
  }

  /** Let the engine finish its current steps, within bounds, and end the worker. Safe to call twice. */
  close() {
    return this.#link.close();
  }

  /** An event that nobody hears is not even made. */
  #listen() {
    const types = [...this.#listeners].flatMap(([type, { size }]) => (size > 0 ? [type] : []));
    this.#link.listen([...new Set([...RUN_CHANGES, ...types])]);
  }

  /** @param {DurablyEvent} event */
  #dispatch(event) {
    for (const type of [event.type, "*"]) {
      for (const listener of this.#listeners.get(type) ?? []) call(listener, event);
    }
    if (!RUN_CHANGES.includes(event.type)) return;
    for (const { runId, look } of [...this.#waiting]) if (runId === event.runId) look();
  }
}

/**
 * Call what the page gave us; what it raises is its own affair.
 *
 * @template {unknown[]} A
 * @param {(...details: A) => void} listener
 * @param {A} details
 */
function call(listener, ...details) {
  try {
    listener(...details);
  } catch (error) {
    console.error(error);
  }
}
