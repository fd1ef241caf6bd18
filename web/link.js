/**
 * A page's link to its worker: starting it, starting it again when it dies or hangs, requests with time-outs, and events.
 *
 * A request that has no answer when another worker takes the database over is sent again. It carries an id, so that what has been
 * done already is not done twice.
 *
 * @module
 */

import { DurablyError, errorOf } from "./failures.js";
import { endOfLifeline, seesLifeline } from "./leader.js";
import { onLifecycle, onNetwork } from "./lifecycle.js";
import { PROTOCOL_VERSION } from "./protocol.js";
import { Requests } from "./requests.js";
import { LeadersPage } from "./tabs.js";
import { Watchdog } from "./watchdog.js";

/** @typedef {import("./protocol.js").BootOptions} BootOptions */
/** @typedef {import("./protocol.js").FromWorker} FromWorker */
/** @typedef {import("./protocol.js").Phase} Phase */
/** @typedef {import("./protocol.js").ToWorker} ToWorker */
/** @typedef {import("./types.js").Query} Query */
/** @typedef {import("./types.js").RequestOptions} RequestOptions */

/**
 * `starting` until requests are accepted; then `leader` (the jobs run here) or `follower` (they run in another tab, and this one takes
 * over when that goes); `closed` by `close()`; `failed` with an error that every request repeats.
 *
 * @typedef {"starting" | "leader" | "follower" | "closed" | "failed"} Status
 */

/**
 * @typedef {object} StatusDetail
 * @property {Phase} [phase]  how far the start of whoever runs the jobs is; they run when it is `running`
 * @property {number} [at]  milliseconds since its worker began
 * @property {number} [loaded]  bytes that are there of what the phase downloads, or takes from a cache
 * @property {number} [total]  bytes that it downloads in all
 * @property {string} [readOnly]  why nothing can be written, and no job runs, if so: a newer version has migrated the database
 * @property {Error} [error]  why it failed, or is starting again
 */

/**
 * What is pushed: an event, or that there is one (`journal`).
 *
 * @typedef {import("./types.js").DurablyEvent | {type: "journal", runId: string | null, seq: number}} Pushed
 */

const ASLEEP = "the tab that runs the jobs does not answer; they go on when it wakes, or is closed";
const CLOSE_PATIENCE_MS = 5_000;
// A worker that dies this often within a minute will go on dying: say so instead of looping.
const RESTARTS_PER_MINUTE = 3;

export class Link {
  #boot;
  #requests;
  #onStatus;
  #onEvent;
  #onConnected;
  /** @type {Status} */
  #status = "starting";
  /** @type {string | null} */
  #readOnly = null;
  /** @type {"leader" | "follower"} */
  #role = "follower";
  /** @type {PromiseWithResolvers<void>} */
  #started = Promise.withResolvers();
  /** @type {PromiseWithResolvers<void>} */
  #ready = Promise.withResolvers();
  /** @type {Worker | undefined} */
  #worker;
  #watching = new AbortController();
  #watchdog;
  /** @type {LeadersPage | undefined} */
  #leadersPage;
  #endLifecycle;
  #endNetwork = () => {};
  #followers = 0;
  /** @type {string | null} the run whose code ran last */
  #running = null;
  /** @type {number[]} */
  #deaths = [];
  /** @type {string[]} */
  #events = [];

  /**
   * @param {BootOptions} boot
   * @param {object} settings
   * @param {string[]} settings.events  to hear of from the beginning
   * @param {number} settings.requestTimeout
   * @param {number} settings.hangTimeout  milliseconds without a sign of life after which the worker is started again; a start may
   *   take longer
   * @param {(status: Status, detail: StatusDetail) => void} settings.onStatus  must not raise
   * @param {(event: Pushed) => void} settings.onEvent  must not raise
   * @param {(connection: {seq: number}) => void} settings.onConnected  must not raise; `seq` is that of the last stored event
   */
  constructor(boot, { events, requestTimeout, hangTimeout, onStatus, onEvent, onConnected }) {
    this.#boot = boot;
    this.#events = events;
    this.#onStatus = onStatus;
    this.#onEvent = onEvent;
    this.#onConnected = onConnected;
    this.#requests = new Requests(requestTimeout, (id, { text, storage }) =>
      this.#send(storage ? { type: "storage", id, text, ...storage } : { type: "request", id, text }),
    );
    this.#watchdog = new Watchdog(hangTimeout, () => this.#send({ type: "ping" }), () => this.#lost("hangs"));
    this.#started.promise.catch(() => {});
    this.#ready.promise.catch(() => {});
    this.#endLifecycle = onLifecycle({
      onShutdown: (reason) => this.#send({ type: "shutdown", reason }),
      // Frozen, it would keep the database from the tabs that are awake.
      onSuspend: (certain) => (certain || this.#followers > 0) && this.#suspend(),
      onResume: () => {
        if (!this.#worker && this.#status === "starting") this.#start({ orphaned: true, blamed: null });
      },
    });
    this.#start();
  }

  get status() {
    return this.#status;
  }

  /** Why nothing can be written, if so. */
  get readOnly() {
    return this.#readOnly;
  }

  /** Resolves when requests are accepted; rejects when the start failed before. */
  get started() {
    return this.#started.promise;
  }

  /** Resolves when the jobs can run, here or in another tab; rejects when the start failed. */
  get ready() {
    return this.#ready.promise;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Query} query
   * @param {unknown} [body]
   * @param {RequestOptions} [options]
   * @returns {Promise<any>} the body of the answer
   */
  async request(method, path, query, body = null, options = {}) {
    return this.#requests.ask({ method, path, query, body }, options);
  }

  /**
   * Ask the worker that has the files of the database.
   *
   * @param {string} method
   * @param {string} path
   * @param {Query} query
   * @param {RequestOptions} [options]
   * @param {Blob} [blob]
   * @returns {Promise<any>} the body of the answer
   */
  async storage(method, path, query, options = {}, blob) {
    return this.#requests.ask({ method, path, query, body: null }, options, blob === undefined ? {} : { blob });
  }

  /**
   * Hear of these types of events, and of no others.
   *
   * @param {string[]} events
   */
  listen(events) {
    this.#events = events;
    this.#send({ type: "listen", events });
  }

  /** Let the engine finish its current steps, within bounds, and end the worker. Safe to call twice. */
  async close() {
    const worker = this.#worker;
    if (this.#status === "closed") return;
    this.#end("closed", new DurablyError("StoreUnavailable", "this client was closed"));
    if (!worker) return;
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, CLOSE_PATIENCE_MS);
      worker.addEventListener("message", ({ data }) => {
        if (/** @type {FromWorker} */ (data).type !== "closed") return;
        clearTimeout(timer);
        resolve(undefined);
      });
      worker.postMessage(/** @type {ToWorker} */ ({ type: "shutdown", reason: "close" }));
    });
    worker.terminate();
  }

  /** @param {import("./protocol.js").Aftermath} [aftermath] */
  #start(aftermath = { orphaned: false, blamed: null }) {
    // Written out, because a bundler looks for exactly this.
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "durably-web" });
    this.#worker = worker;
    this.#running = null;
    this.#watching = new AbortController();
    worker.addEventListener("message", ({ data }) => {
      if (this.#worker === worker) this.#receive(worker, data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      // Without a message the script could not even be loaded. Errors of a worker that runs are only reported.
      const reason = event.message || `the worker could not be loaded; its script belongs beside ${import.meta.url}`;
      if (this.#worker === worker && this.#status === "starting") this.#fail(new DurablyError("BootFailed", reason));
      else console.error("durably-web worker:", reason);
    });
    this.#send({ type: "listen", events: this.#events });
    this.#endNetwork();
    this.#endNetwork = onNetwork((online) => this.#send({ type: "network", online }));
    this.#send({ type: "boot", protocol: PROTOCOL_VERSION, options: this.#boot, aftermath });
  }

  /**
   * @param {Worker} worker
   * @param {FromWorker} message
   */
  #receive(worker, message) {
    this.#watchdog.sign();
    switch (message.type) {
      case "hello":
        this.#watch(worker, message.lifeline).catch(() => {});
        break;
      case "role":
        this.#play(message.role, message.channel);
        break;
      case "connected":
        this.#status = this.#role;
        this.#onConnected({ seq: message.seq });
        this.#requests.connected();
        this.#started.resolve();
        break;
      case "phase":
        this.#readOnly = message.readOnly ?? null;
        this.#onStatus(this.#status, detailOf(message));
        if (message.phase !== "running") break;
        this.#ready.resolve();
        if (this.#role === "leader") this.#watchdog.start({ starting: false });
        break;
      case "response":
        this.#requests.answered(message.id, message.text, message.blob);
        break;
      case "event":
        this.#onEvent(JSON.parse(message.text));
        break;
      case "followers":
        this.#followers = message.count;
        break;
      case "running":
        this.#running = message.runId;
        break;
      case "asleep":
        this.#onStatus(this.#status, { error: new DurablyError("StoreUnavailable", ASLEEP) });
        break;
      case "deposed":
        // Another tab took over while this one slept: this worker is of no more use, and the page gets in line again.
        this.#suspend();
        if (this.#isTooOften()) this.#fail(new DurablyError("StoreUnavailable", "other tabs take the database away again and again"));
        else this.#start();
        break;
      case "restart":
        this.#restart(message.error === null ? undefined : errorOf(message.error));
        break;
      case "failed":
        this.#fail(errorOf(message.error));
        break;
    }
  }

  /**
   * Notice the end of the worker.
   *
   * @param {Worker} worker
   * @param {string} lifeline
   */
  async #watch(worker, lifeline) {
    const sees = seesLifeline(lifeline);
    // Nobody gets this lock before the worker is gone, whatever ended it.
    await endOfLifeline(lifeline, this.#watching.signal);
    // Where it could not be seen, only the silence of the worker tells.
    if ((await sees) && this.#worker === worker) this.#lost("dies");
  }

  /**
   * @param {"leader" | "follower"} role
   * @param {string} channel
   */
  #play(role, channel) {
    this.#role = role;
    this.#leadersPage?.close();
    if (role !== "leader") return;
    // Requests wait until the database is open.
    this.#status = "starting";
    this.#requests.disconnected();
    this.#leadersPage = new LeadersPage(channel);
    this.#watchdog.start({ starting: true });
  }

  /**
   * The files are others than those that the worker has.
   *
   * @param {Error} [error]  what happened to them, when nobody asked for it
   */
  #restart(error) {
    this.#suspend(error);
    if (error !== undefined && this.#isTooOften()) this.#fail(error);
    else this.#start({ orphaned: true, blamed: null });
  }

  /**
   * The worker goes, and gives up whatever it holds, at once.
   *
   * @param {Error} [error]
   */
  #suspend(error) {
    // Nobody is to blame for that.
    this.#leadersPage?.blame(null);
    this.#disconnect();
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#status = "starting";
    this.#onStatus("starting", error === undefined ? {} : { error });
  }

  #disconnect() {
    this.#watching.abort();
    this.#watchdog.stop();
    this.#leadersPage?.close();
    this.#leadersPage = undefined;
    this.#requests.disconnected();
    this.#followers = 0;
  }

  /** @param {"dies" | "hangs"} how */
  #lost(how) {
    const message =
      how === "hangs"
        ? "the worker that runs the jobs gave no answer for too long and was ended"
        : "the worker that runs the jobs has ended unexpectedly";
    const error = new DurablyError("StoreUnavailable", message);
    // One that dies under a run is bounded by the attempts that the run has.
    if (this.#running === null && this.#isTooOften()) {
      this.#fail(error);
      return;
    }
    const blamed = this.#running;
    this.#leadersPage?.blame(blamed);
    this.#disconnect();
    this.#worker?.terminate();
    this.#status = "starting";
    this.#onStatus("starting", { error });
    this.#start({ orphaned: true, blamed });
  }

  /** Whether a worker went so often lately that it makes no sense to start another one. */
  #isTooOften() {
    const now = performance.now();
    this.#deaths = [...this.#deaths.filter((then) => now - then < 60_000), now];
    return this.#deaths.length > RESTARTS_PER_MINUTE;
  }

  /** @param {Error} error */
  #fail(error) {
    this.#worker?.terminate();
    this.#end("failed", error);
  }

  /**
   * @param {"closed" | "failed"} status
   * @param {Error} error
   */
  #end(status, error) {
    this.#disconnect();
    this.#endLifecycle();
    this.#endNetwork();
    this.#worker = undefined;
    this.#status = status;
    this.#started.reject(error);
    this.#ready.reject(error);
    this.#requests.end(error);
    this.#onStatus(status, status === "failed" ? { error } : {});
  }

  /** @param {ToWorker} message */
  #send(message) {
    this.#worker?.postMessage(message);
  }
}

/**
 * @param {Extract<FromWorker, {type: "phase"}>} message
 * @returns {StatusDetail}
 */
function detailOf({ phase, at, loaded, total, readOnly }) {
  return { phase, at, ...(total === undefined ? {} : { loaded, total }), ...(readOnly === undefined ? {} : { readOnly }) };
}
