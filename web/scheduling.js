/**
 * What is asked about schedules: runs that nobody has to ask for each time.
 *
 * @module
 */

import { failureOf } from "./failures.js";
import { Handing } from "./handing.js";
import * as wire from "./wire.js";

/** @typedef {import("./types.js").RequestOptions} RequestOptions */
/** @typedef {import("./types.js").Schedule} Schedule */
/** @typedef {import("./types.js").ScheduleOptions} ScheduleOptions */
/** @typedef {import("./types.js").Triggered} Triggered */

/**
 * Schedules are told apart by their names, and kept with the runs: whoever runs the jobs looks after them. In a browser that is a tab
 * that is open; what was due while there was none is up to `missed`.
 */
export class Scheduling extends Handing {
  #request;

  /**
   * @param {import("./types.js").Transport["request"]} request
   */
  constructor(request) {
    super(request);
    this.#request = request;
  }

  /**
   * Let a job run again and again: `cron` says when, or `every`. Stored when this resolves. Called again with the same options,
   * at each start of a page for instance, it changes nothing; with others it changes the schedule of that name. One that is paused stays so.
   *
   *     await durably.schedule("report", { cron: "0 7 * * mon-fri", timezone: "Europe/Zurich" });
   *
   * Rejects with `InvalidInput` or `NotFound`, and with `RequirementFailed` where what reads cron expressions cannot be loaded now.
   *
   * @param {string} jobName
   * @param {ScheduleOptions & RequestOptions} options
   * @returns {Promise<Schedule>}
   */
  async schedule(jobName, options) {
    const [limits, rest] = wire.limitsOf(options ?? {});
    return wire.scheduled(await this.#request("PUT", "/schedule", {}, { jobName, ...wire.scheduleFields(rest) }, limits));
  }

  /**
   * A schedule as it stands.
   *
   * @param {string} name
   * @param {RequestOptions} [options]
   * @returns {Promise<Schedule | null>}  `null` for an unknown name
   */
  async getSchedule(name, options) {
    try {
      return wire.scheduled(await this.#ask("GET", "/schedule", name, options));
    } catch (error) {
      if (failureOf(error).name === "NotFound") return null;
      throw error;
    }
  }

  /**
   * All schedules, by their names.
   *
   * @param {RequestOptions} [options]
   * @returns {Promise<Schedule[]>}
   */
  async getSchedules(options) {
    return (await this.#request("GET", "/schedules", {}, null, wire.onlyLimits(options))).map(wire.scheduled);
  }

  /**
   * Let a schedule ask for no runs until `resumeSchedule`. Runs that there are go on.
   *
   * @param {string} name
   * @param {RequestOptions} [options]
   * @returns {Promise<Schedule>}
   */
  async pauseSchedule(name, options) {
    return wire.scheduled(await this.#ask("POST", "/schedule/pause", name, options));
  }

  /**
   * Let a paused schedule go on with the next tick that comes: what was due meanwhile is over.
   *
   * @param {string} name
   * @param {RequestOptions} [options]
   * @returns {Promise<Schedule>}
   */
  async resumeSchedule(name, options) {
    return wire.scheduled(await this.#ask("POST", "/schedule/resume", name, options));
  }

  /**
   * Ask for a run as the schedule would, now, also while it is paused. Its ticks stay as they are. Rejects with `Conflict` while one of its
   * runs has not ended and `overlap` is `"skip"`.
   *
   * @param {string} name
   * @param {RequestOptions} [options]
   * @returns {Promise<Triggered>}
   */
  async triggerSchedule(name, options) {
    return wire.triggered(await this.#ask("POST", "/schedule/trigger", name, options));
  }

  /**
   * Delete a schedule. The runs that it has asked for stay.
   *
   * @param {string} name
   * @param {RequestOptions} [options]
   */
  async removeSchedule(name, options) {
    await this.#ask("DELETE", "/schedule", name, options);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string} name
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async #ask(method, path, name, options) {
    return this.#request(method, path, { name }, null, wire.onlyLimits(options));
  }
}
