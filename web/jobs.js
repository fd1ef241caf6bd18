/**
 * Jobs as properties: `jobs.<name>.trigger(input)`.
 *
 * @module
 */

import { invalid } from "./failures.js";

/** @typedef {import("./client.js").Durably} Durably */
/** @typedef {import("./types.js").JobHandle} JobHandle */

export class Jobs {
  #durably;
  /** @type {Map<string, string>} */
  #names = new Map();
  /** @type {Map<string, JobHandle>} */
  #made = new Map();

  /** @param {Durably} durably */
  constructor(durably) {
    this.#durably = durably;
  }

  /** @type {Record<string, JobHandle>} */
  handles = new Proxy(/** @type {Record<string, JobHandle>} */ ({}), {
    get: (_, key) => (typeof key === "string" ? this.#handle(this.#names.get(key) ?? key) : undefined),
  });

  /** @param {Record<string, {name: string}>} jobs */
  register(jobs) {
    for (const [key, job] of Object.entries(jobs)) {
      if (typeof job?.name !== "string" || job.name === "") throw invalid(`register takes {key: {name}}; ${key} has no name`);
      this.#names.set(key, job.name);
    }
  }

  /**
   * The same one each time, so that it can be compared.
   *
   * @param {string} name
   */
  #handle(name) {
    const handle = this.#made.get(name) ?? handleOf(this.#durably, name);
    this.#made.set(name, handle);
    return handle;
  }
}

/**
 * @param {Durably} durably
 * @param {string} name
 * @returns {JobHandle}
 */
function handleOf(durably, name) {
  return {
    name,
    trigger: (input, options) => durably.trigger(name, input, options),
    triggerAndWait: (input, options) => durably.triggerAndWait(name, input, options),
    triggerMany: (items, options) => durably.triggerMany(name, items, options),
    schedule: (options) => durably.schedule(name, options),
    async getRun(runId, options) {
      const run = await durably.getRun(runId, options);
      return run?.jobName === name ? run : null;
    },
    async getRuns(filter = {}, options) {
      if ("jobName" in filter) throw invalid(`these are the runs of ${name}: a filter here has no jobName`);
      return durably.getRuns({ ...filter, jobName: name }, options);
    },
  };
}
