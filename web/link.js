/**
 * A page's link to its worker: starting it, starting it again when it dies, requests with time-outs, and events.
 *
 * @module
 */

import { DurablyError, errorOf, failureOf } from "./failures.js";
import { endOfLifeline } from "./leader.js";
import { PROTOCOL_VERSION } from "./protocol.js";

/** @typedef {import("./protocol.js").BootOptions} BootOptions */
/** @typedef {import("./protocol.js").FromWorker} FromWorker */
/** @typedef {import("./protocol.js").Phase} Phase */
/** @typedef {import("./protocol.js").ToWorker} ToWorker */

/**
 * `starting` until it is known who owns the database; then `leader` (the jobs run here) or `follower` (they run in another
 * tab, and this one takes over when that closes); `closed` by `close()`; `failed` with an error that every request repeats.
 *
 * @typedef {"starting" | "leader" | "follower" | "closed" | "failed"} Status
 */

/**
 * @typedef {object} StatusDetail
 * @property {Phase} [phase]  how far the start is
 * @property {number} [at]  milliseconds since the worker began
 * @property {Error} [error]  why it failed, or is starting again
 */

/**
 * What is pushed: an event, or that there is one (`journal`).
 *
 * @typedef {import("./types.js").DurablyEvent | {type: "journal", runId: string | null, seq: number}} Pushed
 */

/** @typedef {{status: number, body: any}} Response */

const CLOSE_PATIENCE_MS = 5_000;
// A worker that dies this often within a minute will go on dying: say so instead of looping.
const RESTARTS_PER_MINUTE = 3;

export class Link {
  #boot;
  #requestTimeout;
  #onStatus;
  #onEvent;
  /** @type {Status} */
  #status = "starting";
  /** @type {PromiseWithResolvers<void>} */
  #started = Promise.withResolvers();
  /** @type {Error | undefined} */
  #failure;
  /** @type {Worker | undefined} */
  #worker;
  #watching = new AbortController();
  /** @type {number[]} */
  #deaths = [];
  /** @type {string[]} */
  #events = [];
  #lastRequest = 0;
  /** @type {Map<number, PromiseWithResolvers<Response>>} */
  #pending = new Map();

  /**
   * @param {BootOptions} boot
   * @param {object} settings
   * @param {string[]} settings.events  to hear of from the beginning
   * @param {number} settings.requestTimeout
   * @param {(status: Status, detail: StatusDetail) => void} settings.onStatus  must not raise
   * @param {(event: Pushed) => void} settings.onEvent  must not raise
   */
  constructor(boot, { events, requestTimeout, onStatus, onEvent }) {
    this.#boot = boot;
    this.#events = events;
    this.#requestTimeout = requestTimeout;
    this.#onStatus = onStatus;
    this.#onEvent = onEvent;
    this.#started.promise.catch(() => {});
    this.#start();
  }

  get status() {
    return this.#status;
  }

  /** Resolves when it is known whether the jobs run here; rejects when the start failed. */
  get started() {
    return this.#started.promise;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Record<string, string>} query
   * @param {unknown} [body]
   * @returns {Promise<any>} the body of the answer
   */
  async request(method, path, query, body = null) {
    if (this.#failure) throw this.#failure;
    if (this.#status === "follower") throw elsewhere();
    const text = jsonOf({ method, path, query, body });
    const id = ++this.#lastRequest;
    /** @type {PromiseWithResolvers<Response>} */
    const pending = Promise.withResolvers();
    this.#pending.set(id, pending);
    const timer = setTimeout(() => {
      pending.reject(new DurablyError("TimeoutError", `${method} ${path} got no answer in ${this.#requestTimeout} ms`));
    }, this.#requestTimeout);
    try {
      if (this.#worker) send(this.#worker, { type: "request", id, text });
      const response = await pending.promise;
      if (response.status < 400) return response.body;
      throw new DurablyError(response.body.name ?? "DurablyError", response.body.error);
    } finally {
      clearTimeout(timer);
      this.#pending.delete(id);
    }
  }

  /**
   * Hear of these types of events, and of no others.
   *
   * @param {string[]} events
   */
  listen(events) {
    this.#events = events;
    if (this.#worker) send(this.#worker, { type: "listen", events });
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
      send(worker, { type: "close" });
    });
    worker.terminate();
  }

  #start() {
    const script = new URL("worker.js", import.meta.url);
    const worker = new Worker(script, { type: "module", name: "durably-web" });
    this.#worker = worker;
    this.#watching = new AbortController();
    worker.addEventListener("message", ({ data }) => {
      if (this.#worker === worker) this.#receive(worker, data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      // Without a message the script could not even be loaded. Errors of a worker that runs are only reported.
      const reason = event.message || `the worker could not be loaded from ${script}`;
      if (this.#worker === worker && this.#status === "starting") this.#fail(new DurablyError("BootFailed", reason));
      else console.error("durably-web worker:", reason);
    });
    send(worker, { type: "listen", events: this.#events });
    send(worker, { type: "boot", protocol: PROTOCOL_VERSION, options: this.#boot });
  }

  /**
   * @param {Worker} worker
   * @param {FromWorker} message
   */
  #receive(worker, message) {
    switch (message.type) {
      case "hello":
        // Nobody gets this lock before the worker is gone, whatever ended it.
        endOfLifeline(message.lifeline, this.#watching.signal).then(
          () => this.#worker === worker && this.#lost(),
          () => {},
        );
        break;
      case "status":
        this.#reach(message.phase, message.at);
        break;
      case "response":
        this.#pending.get(message.id)?.resolve(JSON.parse(message.text));
        break;
      case "event":
        this.#onEvent(JSON.parse(message.text));
        break;
      case "failed":
        this.#fail(errorOf(message.error));
        break;
      case "closed":
        break;
    }
  }

  /**
   * @param {Phase} phase
   * @param {number} at
   */
  #reach(phase, at) {
    this.#status = phase === "running" ? "leader" : phase === "follower" ? "follower" : "starting";
    if (phase === "follower") this.#rejectPending(elsewhere());
    this.#onStatus(this.#status, { phase, at });
    if (this.#status !== "starting") this.#started.resolve();
  }

  #lost() {
    const now = performance.now();
    this.#deaths = [...this.#deaths.filter((then) => now - then < 60_000), now];
    const error = new DurablyError("StoreUnavailable", "the worker that runs the jobs has ended unexpectedly");
    if (this.#deaths.length > RESTARTS_PER_MINUTE) {
      this.#fail(error);
      return;
    }
    this.#status = "starting";
    this.#onStatus(this.#status, { error });
    this.#rejectPending(error);
    this.#start();
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
    this.#watching.abort();
    this.#worker = undefined;
    this.#failure = error;
    this.#status = status;
    this.#started.reject(error);
    this.#rejectPending(error);
    this.#onStatus(status, status === "failed" ? { error } : {});
  }

  /** @param {Error} error */
  #rejectPending(error) {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

/**
 * @param {Worker} worker
 * @param {ToWorker} message
 */
function send(worker, message) {
  worker.postMessage(message);
}

function elsewhere() {
  return new DurablyError(
    "StoreUnavailable",
    "another tab runs the jobs of this site; this one takes over when that one closes",
  );
}

/** @param {unknown} value */
function jsonOf(value) {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw new DurablyError("InvalidInput", `the input is not JSON: ${failureOf(error).message}`, { cause: error });
  }
}
