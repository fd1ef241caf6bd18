/**
 * What is asked of the engine: each method is one request.
 *
 * @module
 */

import { failureOf } from "./failures.js";
import * as wire from "./wire.js";

/** @typedef {import("./types.js").Item} Item */
/** @typedef {import("./types.js").LogLine} LogLine */
/** @typedef {import("./types.js").RequestOptions} RequestOptions */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./types.js").RunFilter} RunFilter */
/** @typedef {import("./types.js").Selection} Selection */
/** @typedef {import("./types.js").Stats} Stats */
/** @typedef {import("./types.js").Step} Step */
/** @typedef {import("./types.js").Triggered} Triggered */
/** @typedef {import("./types.js").TriggerOptions} TriggerOptions */

/**
 * The last argument of every request takes `signal` and `timeout`. A request is sent again when its receiver goes away before it has
 * answered, and never done twice. One that rejects because it was aborted, or because its time was up, may have been
 * done, or still be.
 */
export class Asking {
  #request;

  /**
   * @param {import("./types.js").Transport["request"]} request
   */
  constructor(request) {
    this.#request = request;
  }

  /**
   * Ask for a run of a job. The run is stored when this resolves.
   *
   * @param {string} jobName
   * @param {unknown} [input]  JSON; `{}` by default
   * @param {TriggerOptions & RequestOptions} [options]
   * @returns {Promise<Triggered>}
   */
  async trigger(jobName, input, options = {}) {
    const [limits, rest] = wire.limitsOf(options);
    const body = { jobName, input: wire.inputOf(input), ...wire.triggerFields(rest) };
    return wire.triggered(await this.#request("POST", "/trigger", {}, body, limits));
  }

  /**
   * Ask for several runs of a job: all are stored when this resolves, or none.
   *
   * @param {string} jobName
   * @param {Item[]} items
   * @param {RequestOptions} [options]
   * @returns {Promise<Triggered[]>}  in the order of the items
   */
  async triggerMany(jobName, items, options) {
    const body = { jobName, items: wire.itemsOf(items) };
    const answers = await this.#request("POST", "/trigger-many", {}, body, wire.onlyLimits(options));
    return answers.map(wire.triggered);
  }

  /**
   * A run as it stands.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   * @returns {Promise<Run | null>}  `null` for an unknown id
   */
  async getRun(runId, options) {
    try {
      return await this.#get("/run", { runId }, options);
    } catch (error) {
      if (failureOf(error).name === "NotFound") return null;
      throw error;
    }
  }

  /**
   * Runs that meet all conditions, newest first.
   *
   * @param {RunFilter} [filter]
   * @param {RequestOptions} [options]
   * @returns {Promise<Run[]>}
   */
  async getRuns(filter, options) {
    return this.#get("/runs", wire.filterQuery(filter), options);
  }

  /**
   * The steps of a run as they stand, with the tries that failed, in order. Empty for an unknown id.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   * @returns {Promise<Step[]>}
   */
  async getSteps(runId, options) {
    return this.#get("/steps", { runId }, options);
  }

  /**
   * What a run has logged, in order. Empty for an unknown id.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   * @returns {Promise<LogLine[]>}
   */
  async getLogs(runId, options) {
    return this.#get("/logs", { runId }, options);
  }

  /**
   * How many runs there are by status and job, and which jobs are paused.
   *
   * @param {RequestOptions} [options]
   * @returns {Promise<Stats>}
   */
  async stats(options) {
    return this.#get("/stats", {}, options);
  }

  /**
   * Send a signal to a run: to its next `step.wait_for_signal(name)`, now or later. Stored when this resolves.
   *
   * @param {string} runId
   * @param {string} name
   * @param {unknown} [payload]  JSON
   * @param {RequestOptions} [options]
   */
  async signal(runId, name, payload = null, options) {
    await this.#request("POST", "/signal", { runId, name }, wire.inputOf(payload), wire.onlyLimits(options));
  }

  /**
   * End a run that has not ended, and all that it has started.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   */
  async cancel(runId, options) {
    await this.#change("POST", "/cancel", { runId }, options);
  }

  /**
   * Let the same failed or cancelled run go on from its first step without a result.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   */
  async retry(runId, options) {
    await this.#change("POST", "/retry", { runId }, options);
  }

  /**
   * A new run with the same input and labels.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   * @returns {Promise<{id: string}>}
   */
  async retrigger(runId, options) {
    const answer = await this.#change("POST", "/retrigger", { runId }, options);
    return { id: answer.runId };
  }

  /**
   * A new run with the input, the labels and the stored results of another one: all of them, or those from before `fromStep`
   * (`"save#2"`), which is then executed again with all that follows.
   *
   * @param {string} runId
   * @param {{fromStep?: string} & RequestOptions} [options]
   * @returns {Promise<{id: string}>}
   */
  async fork(runId, { fromStep, ...options } = {}) {
    const answer = await this.#change("POST", "/fork", fromStep === undefined ? { runId } : { runId, fromStep }, options);
    return { id: answer.runId };
  }

  /**
   * Delete a run that has ended.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   */
  async deleteRun(runId, options) {
    await this.#change("DELETE", "/run", { runId }, options);
  }

  /**
   * Let nobody begin or go on with a run until `resume`; what executes finishes its current steps. Time and signals go on counting.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   */
  async pause(runId, options) {
    await this.#change("POST", "/pause", { runId }, options);
  }

  /**
   * Let a paused run begin or go on.
   *
   * @param {string} runId
   * @param {RequestOptions} [options]
   */
  async resume(runId, options) {
    await this.#change("POST", "/resume", { runId }, options);
  }

  /**
   * Let no run of this job begin or go on until `resumeJob`; what executes goes on.
   *
   * @param {string} jobName
   * @param {RequestOptions} [options]
   */
  async pauseJob(jobName, options) {
    await this.#change("POST", "/pause", { jobName }, options);
  }

  /**
   * Let the runs of a paused job begin and go on.
   *
   * @param {string} jobName
   * @param {RequestOptions} [options]
   */
  async resumeJob(jobName, options) {
    await this.#change("POST", "/resume", { jobName }, options);
  }

  /**
   * End all runs that meet the conditions and have not ended; tells how many.
   *
   * @param {Selection} which
   * @param {RequestOptions} [options]
   */
  cancelRuns(which, options) {
    return this.#bulk("cancel", which, options);
  }

  /**
   * Let all runs go on that meet the conditions and failed or were cancelled; tells how many.
   *
   * @param {Selection} which
   * @param {RequestOptions} [options]
   */
  retryRuns(which, options) {
    return this.#bulk("retry", which, options);
  }

  /**
   * Pause all runs that meet the conditions and have not ended; tells how many.
   *
   * @param {Selection} which
   * @param {RequestOptions} [options]
   */
  pauseRuns(which, options) {
    return this.#bulk("pause", which, options);
  }

  /**
   * Resume all runs that meet the conditions and are paused; tells how many.
   *
   * @param {Selection} which
   * @param {RequestOptions} [options]
   */
  resumeRuns(which, options) {
    return this.#bulk("resume", which, options);
  }

  /**
   * Delete all runs that meet the conditions and have ended; tells how many.
   *
   * @param {Selection} which
   * @param {RequestOptions} [options]
   */
  deleteRuns(which, options) {
    return this.#bulk("delete", which, options);
  }

  /**
   * Delete runs that ended before an instant, or more than so many milliseconds ago, the oldest first; tells how many.
   *
   * @param {{olderThan: import("./types.js").Instant | number, limit?: number}} which  at most `limit`, 500 by default
   * @param {RequestOptions} [options]
   * @returns {Promise<number>}
   */
  async purgeRuns(which, options) {
    return (await this.#request("POST", "/purge", {}, wire.purgeFields(which), wire.onlyLimits(options))).count;
  }

  /**
   * @param {string} verb
   * @param {Selection} which
   * @param {RequestOptions} [options]
   * @returns {Promise<number>}
   */
  async #bulk(verb, which, options) {
    return (await this.#change("POST", `/runs/${verb}`, wire.selectionQuery(which), options)).count;
  }

  /**
   * @param {string} path
   * @param {import("./types.js").Query} query
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async #get(path, query, options) {
    return this.#request("GET", path, query, null, wire.onlyLimits(options));
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {import("./types.js").Query} query
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async #change(method, path, query, options) {
    return this.#request(method, path, query, null, wire.onlyLimits(options));
  }
}
