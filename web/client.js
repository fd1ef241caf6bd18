/**
 * durably_web on a page: ask for runs, wait for them, hear what happens.
 *
 *     import { createDurably } from "./durably-web/client.js";
 *
 *     const durably = await createDurably({ jobs: "./jobs.py", database: "app" });
 *     const run = await durably.trigger("import_csv", { text });
 *     const { output } = await durably.waitForRun(run.id);
 *
 * The jobs run in this page's worker, or in that of another tab of the site, or, with `createDurably({ url: "/api/durably" })`, on a
 * server: everything here means the same.
 *
 * @module
 */

import { DurablyError, invalid } from "./failures.js";
import { Following } from "./following.js";
import { call, Hearing } from "./hearing.js";
import { Http } from "./http.js";
import { Jobs } from "./jobs.js";
import { Link } from "./link.js";
import { Offline } from "./offline.js";
import { planOf } from "./options.js";
import { Scheduling } from "./scheduling.js";
import { keysOf, onlyLimits, subscribeOptions } from "./wire.js";

export { DurablyError };

/** @typedef {import("./types.js").DurablyEvent} DurablyEvent */
/** @typedef {import("./types.js").EventType} EventType */
/** @typedef {import("./types.js").Item} Item */
/** @typedef {import("./types.js").JobHandle} JobHandle */
/** @typedef {import("./types.js").LogLine} LogLine */
/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").RequestOptions} RequestOptions */
/** @typedef {import("./types.js").Run} Run */
/** @typedef {import("./types.js").RunFilter} RunFilter */
/** @typedef {import("./types.js").Schedule} Schedule */
/** @typedef {import("./types.js").ScheduleOptions} ScheduleOptions */
/** @typedef {import("./types.js").Selection} Selection */
/** @typedef {import("./types.js").Site} Site */
/** @typedef {import("./types.js").Stats} Stats */
/** @typedef {import("./types.js").Status} Status */
/** @typedef {import("./types.js").StatusDetail} StatusDetail */
/** @typedef {import("./types.js").Step} Step */
/** @typedef {import("./types.js").Storage} Storage */
/** @typedef {import("./types.js").Triggered} Triggered */
/** @typedef {import("./types.js").TriggerOptions} TriggerOptions */
/** @typedef {import("./types.js").WaitOptions} WaitOptions */

/**
 * The client of this page. Resolves as soon as requests are accepted: before Python is up, when the jobs run in this tab. Rejects with
 * an error that names the cause when there is nobody to ask.
 *
 * @param {Options} options  `jobs` for those that run in this page, or `url` for those that run on a server
 * @returns {Promise<Durably>}
 */
export async function createDurably(options) {
  const plan = planOf(options);
  if ("boot" in plan && options.encryptionKey !== undefined) plan.boot.encryptionKeys = await keysOf(options.encryptionKey);
  const durably = new Durably(
    (told) => ("server" in plan ? new Http(plan.server, { ...plan, ...told }) : new Link(plan.boot, { ...plan, ...told })),
    { onStatus: options.onStatus, inPage: "boot" in plan, keep: "boot" in plan && plan.offline ? plan.boot.runtime : undefined },
  );
  await durably.started;
  return durably;
}

/** The engine, as a page sees it. Made by `createDurably`. */
export class Durably extends Scheduling {
  #transport;
  #following;
  #hearing;
  /** @type {Offline | undefined} */
  #offline;
  #jobs = new Jobs(this);

  /**
   * @param {(told: import("./types.js").Told) => import("./types.js").Transport} connect
   * @param {{onStatus?: (status: Status, detail: StatusDetail) => void, inPage: boolean, keep?: string}} settings  `keep`: the folder of the
   *   runtime whose site is kept for offline use
   */
  constructor(connect, { onStatus = () => {}, inPage, keep }) {
    /** @type {import("./types.js").Transport["request"]} */
    const request = (...details) => this.#transport.request(...details);
    super(request);
    this.#following = new Following({
      request,
      status: () => this.status,
      onTypes: () => this.#listen(),
    });
    this.#hearing = new Hearing({
      request,
      onTypes: () => this.#listen(),
      ownClock: inPage,
    });
    this.#transport = connect({
      events: [],
      onStatus: (status, detail) => {
        call(onStatus, status, detail);
        // It is over, or there is somebody again who can be asked.
        if (status !== "starting") this.#following.lookAgain();
        if (status === "closed" || status === "failed") this.#hearing.close();
      },
      onConnected: ({ seq, fresh }) => {
        this.#hearing.connected(seq, fresh);
        this.#following.lookAgain();
      },
      onEvent: (event) => {
        this.#following.hear(event);
        if (event.type !== "journal") this.#hearing.hear(event);
      },
    });
    if (keep === undefined) return;
    const head = { seq: null, runId: null, jobName: null, labels: {} };
    this.#offline = new Offline(keep, (type, version) => {
      this.#hearing.hear({ type, ...head, timestamp: new Date().toISOString(), version });
    });
    void this.#offline.start(this.ready);
  }

  /** @internal Resolves when requests are accepted; rejects when the start failed before. */
  get started() {
    return this.#transport.started;
  }

  /**
   * Resolves when the jobs can run: when Python is up and the job files are loaded, here or in the tab that runs them. Rejects when that
   * failed. Nobody has to wait for it.
   *
   * @returns {Promise<void>}
   */
  get ready() {
    return this.#transport.ready;
  }

  /**
   * Who runs the jobs, or that there is nobody who does.
   *
   * @returns {Status}
   */
  get status() {
    return this.#transport.status;
  }

  /**
   * Why nothing can be written, and no job runs, if so: a newer durably_web has migrated the database. Reading goes on, and what
   * would write rejects with `SchemaTooNew`. Also in the detail of `onStatus`. `null` otherwise, and where a server has the database.
   *
   * @returns {string | null}
   */
  get readOnly() {
    return this.#transport.readOnly ?? null;
  }

  /**
   * Each job by its name: `jobs.import_csv.trigger({ text })`. Names are not checked here: a trigger of a job that there is not
   * rejects with `NotFound`.
   *
   * @returns {Record<string, JobHandle>}
   */
  get jobs() {
    return this.#jobs.handles;
  }

  /**
   * Let `jobs[key]` stand for the job of that name, for code that knows jobs by keys of its own.
   *
   * @param {Record<string, {name: string}>} jobs
   * @returns {this}
   */
  register(jobs) {
    this.#jobs.register(jobs);
    return this;
  }

  /**
   * The same as `ready`: `createDurably` has started everything.
   *
   * @returns {Promise<void>}
   */
  init() {
    return this.ready;
  }

  /**
   * Trigger, wait, and give the run's output. Rejects with `RunFailed` or `RunCancelled`.
   *
   * @param {string} jobName
   * @param {unknown} [input]
   * @param {TriggerOptions & WaitOptions} [options]
   * @returns {Promise<any>}
   */
  async triggerAndWait(jobName, input, options = {}) {
    const { timeout, ...rest } = options;
    const begun = performance.now();
    const { id } = await this.trigger(jobName, input, timeout === undefined ? rest : options);
    const left = timeout === undefined ? undefined : Math.max(0, timeout - (performance.now() - begun));
    const run = await this.waitForRun(id, { signal: options.signal, timeout: left });
    if (run.status === "failed") throw new DurablyError("RunFailed", run.error ?? `run ${id} failed`);
    if (run.status === "cancelled") throw new DurablyError("RunCancelled", `run ${id} was cancelled`);
    return run.output;
  }

  /**
   * The run, once it is completed, failed or cancelled, however long it sleeps or waits before, and whoever executes it. Rejects
   * with `NotFound` when there is no such run, also when it is deleted meanwhile.
   *
   * @param {string} runId
   * @param {WaitOptions} [options]
   * @returns {Promise<Run>}
   */
  async waitForRun(runId, options) {
    return this.#following.waitForRun(runId, onlyLimits(options));
  }

  /**
   * The stored events of a run, or of all runs, and those to come: in order, with no gap and no duplicate, whatever happens to
   * the worker or the server meanwhile. Those of a run end with it.
   *
   *     for await (const event of durably.subscribe(run.id)) console.log(event.type);
   *
   * @param {string} [runId]
   * @param {{after?: number, signal?: AbortSignal}} [options]  `after`: only what comes behind the event with this `seq`; `signal`: the
   *   iteration throws its reason when it aborts
   * @returns {AsyncGenerator<DurablyEvent, void, void>}
   */
  subscribe(runId, options = {}) {
    return this.#following.events(runId, subscribeOptions(options));
  }

  /**
   * Call `listener` for every event of a type, or of all with `"*"`, that happens from now on, in this tab, another one, or on the
   * server: when it is stored, exactly once, also when its source is lost and found again meanwhile; in order, except that live events
   * of one moment may be swapped (`seq` has their order, and `subscribe` keeps it). What a listener raises goes to the console.
   *
   * @template {EventType | "*"} T
   * @param {T} type
   * @param {(event: import("./types.js").EventFor<T>) => void} listener
   * @returns {() => void}  ends it; safe to call twice
   */
  on(type, listener) {
    return this.#hearing.on(type, listener);
  }

  /**
   * What this site has stored in this browser, and how the database is. Rejects with `InvalidInput` when the jobs run on a server, which
   * stores them.
   *
   * @param {RequestOptions} [options]
   * @returns {Promise<Storage>}
   */
  async storage(options) {
    const ask = this.#storage("storage()");
    const isOpen = this.status === "leader" || this.status === "follower";
    const [estimate, persisted, database] = await Promise.all([
      // Browsers were seen to refuse this one; what else there is to tell must not be lost with it.
      navigator.storage.estimate().catch(() => ({ usage: undefined, quota: undefined })),
      navigator.storage.persisted().catch(() => false),
      isOpen ? ask("GET", "/storage", {}, onlyLimits(options)) : { bytes: null, free: null, full: null, setAside: null },
    ]);
    return { usage: estimate.usage ?? null, quota: estimate.quota ?? null, persisted, ...database };
  }

  /**
   * Ask the browser to keep what this site has stored when space gets tight; it may ask the user, or decide by itself. Tells whether it
   * promised to. Rejects like `storage`.
   *
   * @returns {Promise<boolean>}
   */
  async persist() {
    this.#storage("persist()");
    return navigator.storage.persist();
  }

  /**
   * The database as a plain SQLite file, as it stands in one moment; runs go on meanwhile. `Durably("file.db")` on a server opens it, and
   * goes on with its runs. With a `name` of `storage().setAside`: what was set aside under it. Rejects like `storage`.
   *
   * @param {{name?: string} & RequestOptions} [options]
   * @returns {Promise<Blob>}
   */
  async exportDatabase({ name, ...options } = {}) {
    return this.#storage("exportDatabase()")("GET", "/database", name === undefined ? {} : { name }, onlyLimits(options));
  }

  /**
   * Put another database in the place of this one: a file of `exportDatabase`, or that of a server which has stopped. It is checked
   * before, and replaces the other in one step, also if this tab dies in the middle; the one before is deleted then. Its runs go
   * on in this browser; let nobody else go on with them.
   *
   * Rejects with `NotADatabase`, `SchemaTooNew`, `DecryptionFailed` or `StorageFull`, and then nothing has changed.
   *
   * @param {Blob} blob
   * @param {RequestOptions} [options]
   * @returns {Promise<void>}
   */
  async importDatabase(blob, options) {
    const ask = this.#storage("importDatabase()");
    if (!(blob instanceof Blob)) throw invalid(`importDatabase() takes a Blob or a File, not ${blob}`);
    await ask("POST", "/database", {}, onlyLimits(options), blob);
  }

  /**
   * Delete a file that was set aside, by its name in `storage().setAside`. Rejects with `NotFound`, and like `storage`.
   *
   * @param {string} name
   * @param {RequestOptions} [options]
   * @returns {Promise<void>}
   */
  async deleteSetAside(name, options) {
    await this.#storage("deleteSetAside()")("DELETE", "/database", { name }, onlyLimits(options));
  }

  /**
   * @param {string} what
   * @returns {NonNullable<import("./types.js").Transport["storage"]>}
   */
  #storage(what) {
    const { storage } = this.#transport;
    if (!storage) throw invalid(`${what} is about this browser's storage, but the runs of this client are on a server`);
    return (...details) => storage.call(this.#transport, ...details);
  }

  /**
   * Whether this site is kept in this browser for use without a network, and whether a new version of it waits. The events `site:stored`
   * and `site:update` tell of changes.
   *
   * @returns {Site}
   */
  get site() {
    return this.#offline?.site ?? { stored: false, update: null };
  }

  /**
   * Let go of everything: in a page, the engine finishes its current steps, within bounds, and the worker ends. What still waits for
   * an answer rejects with `StoreUnavailable`. Safe to call twice.
   *
   * @returns {Promise<void>}
   */
  close() {
    this.#offline?.close();
    return this.#transport.close();
  }

  /** An event that nobody hears is not even made. */
  #listen() {
    this.#transport.listen([...new Set([...this.#following.types, ...this.#hearing.types])]);
  }
}
