/**
 * How long somebody waits: until their signal aborts, or their time is up. What they wait for goes on without them.
 *
 * @module
 */

import { DurablyError } from "./failures.js";

// A timer of more milliseconds rings at once; nobody waits 24 days on a page.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Patience {
  #controller = new AbortController();
  /** @type {Promise<never>} */
  #ended;
  /** @type {AbortSignal | undefined} */
  #theirs;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {{signal?: AbortSignal, timeout?: number}} limits  milliseconds; without limits it never ends
   * @param {() => DurablyError} late  what to reject with when the time is up
   */
  constructor({ signal, timeout }, late) {
    this.#theirs = signal;
    this.#ended = new Promise((_, reject) => {
      this.signal.addEventListener("abort", () => reject(this.signal.reason));
    });
    // Who does not look at it just now must not be told of a rejection that nobody handles.
    this.#ended.catch(() => {});
    if (signal?.aborted) this.#follow();
    signal?.addEventListener("abort", this.#follow);
    if (timeout !== undefined && timeout <= LONGEST_TIMER_MS) {
      this.#timer = setTimeout(() => this.#controller.abort(late()), timeout);
    }
  }

  /** Aborts with the reason why the waiting ends. */
  get signal() {
    return this.#controller.signal;
  }

  /**
   * The outcome of `work`, or, at once when it ends, the reason why the waiting did.
   *
   * @template T
   * @param {Promise<T>} work
   * @returns {Promise<T>}
   */
  race(work) {
    return Promise.race([this.#ended, work]);
  }

  /** @param {number} milliseconds */
  async sleep(milliseconds) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    try {
      await this.race(new Promise((resolve) => (timer = setTimeout(resolve, milliseconds))));
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * There is nothing to wait for any more.
   *
   * @param {unknown} reason
   */
  give(reason) {
    this.#controller.abort(reason);
  }

  /** Nobody waits any more: lets go of their signal and the timer. */
  end() {
    clearTimeout(this.#timer);
    this.#theirs?.removeEventListener("abort", this.#follow);
  }

  #follow = () => this.give(this.#theirs?.reason);
}

/** @param {string} message */
export function late(message) {
  return new DurablyError("TimeoutError", message);
}
