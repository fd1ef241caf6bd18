/**
 * How much of what a phase downloads is there.
 *
 * @module
 */

/** @typedef {{loaded: number, total: number}} Bytes */

const PAUSE_MS = 100;

export class Progress {
  #tell;
  #loaded = 0;
  #total;
  #told = -1;
  #last = -Infinity;

  /**
   * @param {number} total  in bytes
   * @param {(bytes: Bytes) => void} tell  called with the first ones, the last ones, and now and then
   */
  constructor(total, tell) {
    this.#total = total;
    this.#tell = tell;
  }

  /** @returns {Bytes} */
  get bytes() {
    return { loaded: this.#loaded, total: this.#total };
  }

  /** @param {number} bytes  that have come in */
  add(bytes) {
    this.#loaded = Math.min(this.#loaded + bytes, this.#total);
    const now = performance.now();
    const complete = this.#loaded === this.#total;
    if (this.#loaded === this.#told || (!complete && now - this.#last < PAUSE_MS)) return;
    this.#last = now;
    this.#told = this.#loaded;
    this.#tell(this.bytes);
  }

  /** All of it is there, whatever was counted. */
  complete() {
    this.add(this.#total);
  }
}
