/**
 * The requests of a page: each is sent until it is answered, given up by the page, or there is nobody to answer any more.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { newId } from "./ulid.js";

/**
 * @typedef {object} Patience
 * @property {AbortSignal} [signal]  gives up waiting; what was asked for may still happen
 * @property {number} [timeout]  milliseconds until the request rejects with `TimeoutError`
 */

/** @typedef {{status: number, body: any}} Response */
/** @typedef {{text: string, settle: PromiseWithResolvers<Response>}} Pending */

export class Requests {
  #timeout;
  #send;
  #connected = false;
  /** @type {Error | undefined} */
  #end;
  /** @type {Map<string, Pending>} */
  #pending = new Map();

  /**
   * @param {number} timeout  milliseconds, for those that bring none
   * @param {(id: string, text: string) => void} send
   */
  constructor(timeout, send) {
    this.#timeout = timeout;
    this.#send = send;
  }

  /**
   * @param {{method: string, path: string, query: Record<string, string | string[]>, body: unknown}} request
   * @param {Patience} patience
   * @returns {Promise<any>} the body of the answer
   */
  async ask(request, { signal, timeout = this.#timeout }) {
    if (this.#end) throw this.#end;
    signal?.throwIfAborted();
    const id = newId();
    const text = jsonOf({ id, ...request });
    /** @type {PromiseWithResolvers<Response>} */
    const settle = Promise.withResolvers();
    this.#pending.set(id, { text, settle });
    const late = () => new DurablyError("TimeoutError", `${request.method} ${request.path} got no answer in ${timeout} ms`);
    const timer = Number.isFinite(timeout) ? setTimeout(() => settle.reject(late()), timeout) : undefined;
    const abort = () => settle.reject(signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      if (this.#connected) this.#send(id, text);
      const { status, body } = await settle.promise;
      if (status < 400) return body;
      throw new DurablyError(body.name ?? "DurablyError", body.error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#pending.delete(id);
    }
  }

  /** There is somebody to answer, who knows nothing of what was sent before. */
  connected() {
    this.#connected = true;
    for (const [id, { text }] of this.#pending) this.#send(id, text);
  }

  /** What is asked now waits. */
  disconnected() {
    this.#connected = false;
  }

  /**
   * @param {string} id
   * @param {string} text
   */
  answered(id, text) {
    this.#pending.get(id)?.settle.resolve(JSON.parse(text));
  }

  /**
   * Nobody will answer any more.
   *
   * @param {Error} error
   */
  end(error) {
    this.#end = error;
    for (const { settle } of this.#pending.values()) settle.reject(error);
  }
}

/** @param {unknown} value */
function jsonOf(value) {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw new DurablyError("InvalidInput", `the input is not JSON: ${failureOf(error).message}`, { cause: error });
  }
}
