/**
 * The requests of a page: each is sent until it is answered, given up by the page, or there is nobody to answer any more.
 *
 * @module
 */

import { DurablyError } from "./failures.js";
import { late, Patience } from "./patience.js";
import { newId } from "./ulid.js";
import { jsonOf } from "./wire.js";

/** @typedef {import("./types.js").RequestOptions} RequestOptions */
/** @typedef {{status: number, body: any}} Response */
/**
 * `storage`: it is not for the engine, but for the worker that has the files, and may bring bytes.
 *
 * @typedef {{text: string, storage?: {blob?: Blob}, settle: PromiseWithResolvers<Response>}} Pending
 */

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
   * @param {(id: string, request: Pending) => void} send
   */
  constructor(timeout, send) {
    this.#timeout = timeout;
    this.#send = send;
  }

  /**
   * @param {{method: string, path: string, query: Record<string, string | string[]>, body: unknown}} request
   * @param {RequestOptions} options
   * @param {{blob?: Blob}} [storage]
   * @returns {Promise<any>} the body of the answer
   */
  async ask(request, { signal, timeout = this.#timeout }, storage) {
    if (this.#end) throw this.#end;
    const id = newId();
    const text = jsonOf({ id, ...request });
    /** @type {PromiseWithResolvers<Response>} */
    const settle = Promise.withResolvers();
    const patience = new Patience({ signal, timeout }, () =>
      late(`${request.method} ${request.path} got no answer in ${timeout} ms`),
    );
    const pending = { text, storage, settle };
    this.#pending.set(id, pending);
    try {
      if (this.#connected && !signal?.aborted) this.#send(id, pending);
      const { status, body } = await patience.race(settle.promise);
      if (status < 400) return body;
      throw new DurablyError(body.name ?? "DurablyError", body.error);
    } finally {
      patience.end();
      this.#pending.delete(id);
    }
  }

  /** There is somebody to answer, who knows nothing of what was sent before. */
  connected() {
    this.#connected = true;
    for (const [id, pending] of this.#pending) this.#send(id, pending);
  }

  /** What is asked now waits. */
  disconnected() {
    this.#connected = false;
  }

  /**
   * @param {string} id
   * @param {string} text
   * @param {Blob} [blob]  the body, if that is no JSON
   */
  answered(id, text, blob) {
    const response = JSON.parse(text);
    this.#pending.get(id)?.settle.resolve(blob === undefined ? response : { ...response, body: blob });
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
