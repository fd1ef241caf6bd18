/**
 * The way to a server: requests over `fetch`, and its events over one `EventSource`.
 *
 * A request that finds no server is sent again, with the same id, until its time is up: what the server has done already it does not
 * do twice. Events come from `GET /runs/subscribe`; of it this module expects, beside an event in each message,
 * a message of the type `connected` with `{"seq"}` as soon as what follows is complete: that of the last stored event.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { late, Patience } from "./patience.js";
import { newId } from "./ulid.js";
import { jsonOf } from "./wire.js";

/** @typedef {import("./types.js").Query} Query */
/** @typedef {import("./types.js").RequestOptions} RequestOptions */
/** @typedef {import("./types.js").Status} Status */
/** @typedef {import("./types.js").Told} Told */

// An address where nothing answers is most often a mistake, which must not take a minute to show; a restart takes seconds.
const START_PATIENCE_MS = 10_000;
// What a page listens to before it asks for something, it hears: but a stream that does not come is not waited for.
const STREAM_PATIENCE_MS = 3_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 10_000;
// What stands in front of a server answers these while there is none behind it.
const GATEWAY = [502, 503, 504];
/** @type {Record<number, string>} for answers that carry no name */
const NAMES = {
  400: "BadRequest",
  401: "Unauthorized",
  403: "Forbidden",
  404: "NotFound",
  408: "TimeoutError",
  409: "Conflict",
  413: "PayloadTooLarge",
  429: "TooManyRequests",
  503: "StoreUnavailable",
};

export class Http {
  #url;
  #credentials;
  #requestTimeout;
  #told;
  /** @type {Status} */
  #status = "starting";
  /** @type {PromiseWithResolvers<void>} */
  #started = Promise.withResolvers();
  #isStarted = false;
  #isChecking = false;
  /** @type {Error | undefined} */
  #failure;
  /** Whose time has not ended yet. @type {Set<Patience>} */
  #waiting = new Set();
  #journal = false;
  /** @type {Stream | undefined} */
  #stream;

  /**
   * @param {{url: string, credentials: RequestCredentials}} server  `url` without a slash at its end
   * @param {Told & {requestTimeout: number}} told
   */
  constructor({ url, credentials }, { requestTimeout, ...told }) {
    this.#url = url;
    this.#credentials = credentials;
    this.#requestTimeout = requestTimeout;
    this.#told = told;
    this.#started.promise.catch(() => {});
    this.listen(told.events);
    void this.#start();
  }

  get status() {
    return this.#status;
  }

  /** Resolves when the server has answered; rejects when none does. */
  get started() {
    return this.#started.promise;
  }

  /** The jobs run wherever the server says, now or later: there is nothing more to wait for. */
  get ready() {
    return this.#started.promise;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Query} query
   * @param {unknown} [body]
   * @param {RequestOptions} [options]
   * @returns {Promise<any>} the body of the answer
   */
  async request(method, path, query, body = null, { signal, timeout = this.#requestTimeout } = {}) {
    if (this.#failure) throw this.#failure;
    const text = body === null ? undefined : jsonOf(body);
    /** @type {Record<string, string>} */
    const headers = {};
    if (method !== "GET") headers["Idempotency-Key"] = newId();
    if (text !== undefined) headers["Content-Type"] = "application/json";
    const address = `${this.#url}${path}${searchOf(query)}`;
    return this.#ask(`${method} ${path}`, address, { method, headers, body: text }, { signal, timeout });
  }

  /**
   * The server sends every event while there is a stream; without anybody who listens there is none.
   *
   * @param {string[]} types
   */
  listen(types) {
    this.#journal = types.includes("journal");
    if (types.length === 0 || this.#failure) {
      this.#stream?.close();
      this.#stream = undefined;
    } else {
      this.#stream ??= new Stream(`${this.#url}/runs/subscribe`, this.#credentials === "include", {
        onEvent: (event) => this.#hear(event),
        onConnected: (connection) => {
          this.#reached();
          this.#told.onConnected(connection);
        },
        onLost: () => {
          this.#lost(new DurablyError("StoreUnavailable", `the stream of events from ${this.#url} broke off`));
          void this.#check();
        },
      });
    }
  }

  /** The runs go on. Safe to call twice. */
  async close() {
    if (this.#status !== "closed") this.#finish("closed", new DurablyError("StoreUnavailable", "this client was closed"));
  }

  async #start() {
    const timeout = Math.min(this.#requestTimeout, START_PATIENCE_MS);
    try {
      await this.#askHealth(timeout);
      this.#isStarted = true;
      this.#reached();
      this.#started.resolve();
    } catch (error) {
      if (!this.#failure) this.#finish("failed", /** @type {Error} */ (error));
    }
  }

  /**
   * Without a stream, is the server still there? When it is, who waits for something looks again: the stream may be refused for ever
   * by what is in between.
   */
  async #check() {
    if (!this.#isStarted || this.#isChecking) return;
    this.#isChecking = true;
    await this.#askHealth(this.#requestTimeout).catch(() => {});
    this.#isChecking = false;
  }

  /** @param {number} timeout */
  async #askHealth(timeout) {
    return this.#ask("GET /health", `${this.#url}/health`, { method: "GET" }, { timeout });
  }

  /**
   * @param {string} what
   * @param {string} address
   * @param {RequestInit} request
   * @param {RequestOptions} limits
   * @returns {Promise<any>}
   */
  async #ask(what, address, request, limits) {
    /** @type {Obstacle | undefined} */
    let obstacle;
    const patience = new Patience(limits, () => obstacle ?? late(`${what} got no answer in ${limits.timeout} ms`));
    const repeat = async () => {
      for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
        await this.#stream?.opening;
        patience.signal.throwIfAborted();
        try {
          const body = await this.#exchange(what, address, { ...request, signal: patience.signal });
          this.#reached();
          return body;
        } catch (error) {
          if (!(error instanceof Obstacle)) throw error;
          obstacle = error;
          this.#lost(error);
        }
        // Not all pages at once, when a server comes back.
        await patience.sleep(pause * (0.5 + Math.random() / 2));
      }
    };
    this.#waiting.add(patience);
    try {
      return await patience.race(repeat());
    } finally {
      patience.end();
      this.#waiting.delete(patience);
    }
  }

  /**
   * @param {string} what
   * @param {string} address
   * @param {RequestInit & {signal: AbortSignal}} request
   * @returns {Promise<any>} the body of the answer
   */
  async #exchange(what, address, request) {
    let response, text;
    try {
      response = await fetch(address, { ...request, credentials: this.#credentials, cache: "no-store" });
      text = await response.text();
    } catch (error) {
      request.signal.throwIfAborted();
      throw new Obstacle("StoreUnavailable", `${what} did not reach ${this.#url}: ${failureOf(error).message}`, { cause: error });
    }
    const { status, statusText } = response;
    const body = parsed(text);
    if (GATEWAY.includes(status) && (body === undefined || what === "GET /health")) {
      throw new Obstacle("StoreUnavailable", `${what} was answered with ${status}: ${body?.error ?? statusText}`);
    }
    if (body === undefined && (response.ok || !(status in NAMES) || status === 404)) {
      const doubt = `is ${this.#url} the address of a durably_web server?`;
      throw new DurablyError("StoreUnavailable", `${what} was answered with ${status} and no JSON: ${doubt}`);
    }
    if (response.ok) return body;
    throw new DurablyError(body?.name ?? NAMES[status] ?? "DurablyError", body?.error ?? `${what} was refused: ${status} ${statusText}`);
  }

  /** @param {import("./types.js").DurablyEvent} event */
  #hear(event) {
    this.#told.onEvent(event);
    if (this.#journal && event.seq !== null) this.#told.onEvent({ type: "journal", runId: event.runId, seq: event.seq });
  }

  #reached() {
    if (!this.#isStarted || this.#status !== "starting") return;
    this.#status = "follower";
    this.#told.onStatus("follower", { phase: "running" });
  }

  /** @param {Error} error */
  #lost(error) {
    if (this.#status !== "follower") return;
    this.#status = "starting";
    this.#told.onStatus("starting", { error });
  }

  /**
   * @param {"closed" | "failed"} status
   * @param {Error} error
   */
  #finish(status, error) {
    this.#failure = error;
    this.#status = status;
    this.listen([]);
    this.#started.reject(error);
    for (const patience of this.#waiting) patience.give(error);
    this.#told.onStatus(status, status === "failed" ? { error } : {});
  }
}

/** The server was not reached, so it is asked again. */
class Obstacle extends DurablyError {}

/**
 * @typedef {object} Heard  What a stream tells.
 * @property {(event: import("./types.js").DurablyEvent) => void} onEvent
 * @property {Told["onConnected"]} onConnected
 * @property {() => void} onLost
 */

/** The events of all runs, as long as it is not closed: an `EventSource`, and another one when the browser gives that up. */
class Stream {
  #address;
  #withCredentials;
  #heard;
  /** @type {EventSource | undefined} */
  #source;
  #fresh = true;
  /** @type {PromiseWithResolvers<void>} */
  #opening = Promise.withResolvers();
  #openingTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #again;
  #pause = FIRST_PAUSE_MS;

  /**
   * @param {string} address
   * @param {boolean} withCredentials
   * @param {Heard} heard
   */
  constructor(address, withCredentials, heard) {
    this.#address = address;
    this.#withCredentials = withCredentials;
    this.#heard = heard;
    this.#openingTimer = setTimeout(this.#opening.resolve, STREAM_PATIENCE_MS);
    this.#open();
  }

  /** Resolves when events come, or when they take too long to wait for them. */
  get opening() {
    return this.#opening.promise;
  }

  close() {
    clearTimeout(this.#again);
    this.#opened();
    this.#source?.close();
  }

  #open() {
    const source = new EventSource(this.#address, { withCredentials: this.#withCredentials });
    this.#source = source;
    source.addEventListener("connected", ({ data }) => {
      this.#pause = FIRST_PAUSE_MS;
      this.#heard.onConnected({ seq: JSON.parse(data).seq, fresh: this.#fresh });
      this.#fresh = false;
      this.#opened();
    });
    source.addEventListener("message", ({ data }) => this.#heard.onEvent(JSON.parse(data)));
    source.addEventListener("error", () => {
      this.#opened();
      this.#heard.onLost();
      // Otherwise it connects again by itself, and says behind which event it goes on.
      if (source.readyState !== source.CLOSED) return;
      this.#again = setTimeout(() => this.#open(), this.#pause);
      this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
    });
  }

  #opened() {
    clearTimeout(this.#openingTimer);
    this.#opening.resolve();
  }
}

/**
 * @param {Query} query
 * @returns {string}
 */
function searchOf(query) {
  const pairs = Object.entries(query).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  return pairs.length > 0 ? `?${new URLSearchParams(pairs)}` : "";
}

/**
 * @param {string} text
 * @returns {any}  nothing when it is not JSON
 */
function parsed(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return undefined;
  }
}
