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
import { Following } from "./following.js";
import { Link } from "./link.js";
import { filterQuery, itemFields, keysOf, purgeFields, selectionQuery, triggered, triggerFields } from "./wire.js";

export { DurablyError };

// By this name, because a bundler would take `new URL(".", import.meta.url)` for a file that it has to move.
const HERE = import.meta.url;

/** @typedef {import("./types.js").DurablyEvent} DurablyEvent */
/** @typedef {import("./types.js").EventType} EventType */
/** @typedef {import("./types.js").JobHandle} JobHandle */
/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./types.js").RunFilter} RunFilter */
/** @typedef {import("./types.js").Selection} Selection */
/** @typedef {import("./types.js").Status} Status */
/** @typedef {import("./types.js").StatusDetail} StatusDetail */
/** @typedef {import("./types.js").Triggered} Triggered */
/** @typedef {import("./types.js").TriggerOptions} TriggerOptions */

/**
 * Start the engine of this page. Resolves when the jobs run here, or when it is known that they run in another tab;
 * rejects with an error that names the cause when they can run in neither.
 *
 * @param {Options} options
 * @returns {Promise<Durably>}
 */
export async function createDurably(options) {
  const { encryptionKey } = options;
  const durably = new Durably(options, encryptionKey === undefined ? [] : await keysOf(encryptionKey));
  await durably.started;
  return durably;
}

/** The engine as a page sees it. Made by `createDurably`. */
export class Durably {
  #link;
  #following;
  /** @type {Map<string, Set<(event: any) => void>>} */
  #listeners = new Map();

  /**
   * @param {Options} options
   * @param {Uint8Array[]} encryptionKeys  those of the options, as bytes
   */
  constructor(
    {
      jobs,
      database = "default",
      requirements = [],
      durability = "full",
      base = new URL("..", HERE).pathname,
      runtime = new URL(".", HERE),
      pyodide,
      role = "auto",
      requestTimeout = 60_000,
      hangTimeout = 120_000,
      onStatus = () => {},
    },
    encryptionKeys,
  ) {
    const absolute = (/** @type {string | URL} */ url) => new URL(url, document.baseURI).href;
    const boot = {
      jobs: [jobs].flat().map(absolute),
      database,
      base: new URL(base, document.baseURI).pathname,
      runtime: absolute(runtime).replace(/\/?$/, "/"),
      pyodide: absolute(pyodide ?? new URL("pyodide/", absolute(runtime).replace(/\/?$/, "/"))).replace(/\/?$/, "/"),
      role,
      requirements: requirements.map((wheel) => (/[/]|\.whl$/.test(wheel) ? absolute(wheel) : wheel)),
      durability,
      encryptionKeys,
    };
    this.#following = new Following({
      request: (method, path, query) => this.#link.request(method, path, query),
      status: () => this.status,
      onTypes: () => this.#listen(),
    });
    this.#link = new Link(boot, {
      events: this.#following.types,
      requestTimeout,
      hangTimeout,
      onConnected: () => this.#following.lookAgain(),
      onEvent: (event) => this.#dispatch(event),
      onStatus: (status, detail) => {
        call(onStatus, status, detail);
        if (status === "closed" || status === "failed") this.#following.lookAgain();
      },
    });
  }

  /** Resolves when it is known whether the jobs run here; rejects when the start failed. */
  get started() {
    return this.#link.started;
  }

  /** Resolves when the jobs can run; rejects when they never will. Nobody has to wait for it. */
  get ready() {
    return this.#link.ready;
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
            /** @type {JobHandle["triggerMany"]} */
            triggerMany: (items) => this.triggerMany(name, items),
          }
        : undefined,
  });

  /**
   * Ask for a run of a job. The run is stored when this resolves.
   *
   * @param {string} jobName
   * @param {unknown} [input]
   * @param {TriggerOptions} [options]
   * @returns {Promise<Triggered>}
   */
  async trigger(jobName, input = {}, options = {}) {
    const body = { jobName, input, ...triggerFields(options) };
    return triggered(await this.#link.request("POST", "/trigger", {}, body));
  }

  /**
   * Ask for several runs of a job: all are stored when this resolves, or none.
   *
   * @param {string} jobName
   * @param {import("./types.js").Item[]} items
   * @returns {Promise<Triggered[]>}
   */
  async triggerMany(jobName, items) {
    const answers = await this.#link.request("POST", "/trigger-many", {}, { jobName, items: items.map(itemFields) });
    return answers.map(triggered);
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
   * Runs, newest first.
   *
   * @param {RunFilter} [filter]
   * @returns {Promise<Run[]>}
   */
  async getRuns(filter) {
    return this.#link.request("GET", "/runs", filterQuery(filter));
  }

  /**
   * The steps of a run as they stand, with the tries that failed.
   *
   * @param {string} runId
   * @returns {Promise<import("./types.js").Step[]>}
   */
  getSteps(runId) {
    return this.#link.request("GET", "/steps", { runId });
  }

  /**
   * @param {string} runId
   * @returns {Promise<import("./types.js").LogLine[]>}
   */
  getLogs(runId) {
    return this.#link.request("GET", "/logs", { runId });
  }

  /**
   * How many runs there are by status and job, and which jobs are paused.
   *
   * @returns {Promise<import("./types.js").Stats>}
   */
  stats() {
    return this.#link.request("GET", "/stats", {});
  }

  /**
   * The run, once it is completed, failed or cancelled, however long it sleeps or waits before.
   *
   * @param {string} runId
   * @param {{timeout?: number}} [options]  milliseconds; without it, as long as it takes
   * @returns {Promise<Run>}
   */
  waitForRun(runId, { timeout } = {}) {
    return this.#following.waitForRun(runId, timeout);
  }

  /**
   * The stored events of a run, or of all runs, and those to come: in order, with no gap and no duplicate, whatever happens to
   * the worker meanwhile. Those of a run end with it.
   *
   *     for await (const event of durably.subscribe(run.id)) console.log(event.type);
   *
   * @param {string} [runId]
   * @param {{after?: number}} [options]  only what comes behind the event with this `seq`
   * @returns {AsyncGenerator<DurablyEvent, void, void>}
   */
  subscribe(runId, { after } = {}) {
    return this.#following.events(runId, after);
  }

  /**
   * Send a signal to a run: to its next `step.wait_for_signal(name)`, now or later. Stored when this resolves.
   *
   * @param {string} runId
   * @param {string} name
   * @param {unknown} [payload]
   */
  async signal(runId, name, payload = null) {
    await this.#link.request("POST", "/signal", { runId, name }, payload);
  }

  /**
   * End a run that has not ended, and all that it has started.
   *
   * @param {string} runId
   */
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

  /**
   * A new run with the input, the labels and the stored results of another one: all of them, or those from before `fromStep`
   * (`"save#2"`), which is then executed again with all that follows.
   *
   * @param {string} runId
   * @param {{fromStep?: string}} [options]
   * @returns {Promise<{id: string}>}
   */
  async fork(runId, { fromStep } = {}) {
    const answer = await this.#link.request("POST", "/fork", fromStep === undefined ? { runId } : { runId, fromStep });
    return { id: answer.runId };
  }

  /**
   * Delete a run that has ended.
   *
   * @param {string} runId
   */
  async deleteRun(runId) {
    await this.#link.request("DELETE", "/run", { runId });
  }

  /**
   * Let nobody begin or go on with a run until `resume`; what executes finishes its current steps. Time and signals go on counting.
   *
   * @param {string} runId
   */
  async pause(runId) {
    await this.#link.request("POST", "/pause", { runId });
  }

  /** @param {string} runId */
  async resume(runId) {
    await this.#link.request("POST", "/resume", { runId });
  }

  /**
   * Let no run of this job begin or go on until `resumeJob`; what executes goes on.
   *
   * @param {string} jobName
   */
  async pauseJob(jobName) {
    await this.#link.request("POST", "/pause", { jobName });
  }

  /** @param {string} jobName */
  async resumeJob(jobName) {
    await this.#link.request("POST", "/resume", { jobName });
  }

  // These do to every run that meets the conditions, and whose state allows it, what their name says; they tell to how many.

  /** @param {Selection} which */
  cancelRuns(which) {
    return this.#bulk("cancel", which);
  }

  /** @param {Selection} which */
  retryRuns(which) {
    return this.#bulk("retry", which);
  }

  /** @param {Selection} which */
  pauseRuns(which) {
    return this.#bulk("pause", which);
  }

  /** @param {Selection} which */
  resumeRuns(which) {
    return this.#bulk("resume", which);
  }

  /** @param {Selection} which */
  deleteRuns(which) {
    return this.#bulk("delete", which);
  }

  /**
   * Delete runs that ended before an instant, or more than so many milliseconds ago, the oldest first; tells how many.
   *
   * @param {{olderThan: Date | number, limit?: number}} which  at most `limit`, 500 by default
   * @returns {Promise<number>}
   */
  async purgeRuns(which) {
    return (await this.#link.request("POST", "/purge", {}, purgeFields(which))).count;
  }

  /**
   * Call `listener` for every event of a type, or of all with `"*"`, that happens in this page's worker from now on.
   *
   * @template {EventType | "*"} T
   * @param {T} type
   * @param {(event: import("./types.js").EventFor<T>) => void} listener
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

  /**
   * @param {string} verb
   * @param {Selection} which
   * @returns {Promise<number>}
   */
  async #bulk(verb, which) {
    return (await this.#link.request("POST", `/runs/${verb}`, selectionQuery(which))).count;
  }

  /** An event that nobody hears is not even made. */
  #listen() {
    const types = [...this.#listeners].flatMap(([type, { size }]) => (size > 0 ? [type] : []));
    this.#link.listen([...new Set([...this.#following.types, ...types])]);
  }

  /** @param {import("./link.js").Pushed} event */
  #dispatch(event) {
    this.#following.hear(event);
    if (event.type === "journal") return;
    for (const type of [event.type, "*"]) {
      for (const listener of this.#listeners.get(type) ?? []) call(listener, event);
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
function call(listener, ...details) {
  try {
    listener(...details);
  } catch (error) {
    console.error(error);
  }
}
