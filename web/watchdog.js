/**
 * Watches the worker that runs the jobs: Python has no threads there, so a step that never ends also never lets the worker answer.
 *
 * @module
 */

// So often within the time that is allowed, a sign of life is asked for.
const LOOKS = 4;
// Starting Python is one long computation, on a slow machine of many seconds.
const LEAST_FOR_START_MS = 120_000;

export class Watchdog {
  #patience;
  #ping;
  #onHang;
  /** How many looks ago the last sign came. */
  #silent = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #looking;

  /**
   * @param {number} patience  milliseconds; 0 or Infinity for one that never barks
   * @param {() => void} ping  asks for a sign of life
   * @param {() => void} onHang  called when none came for that long
   */
  constructor(patience, ping, onHang) {
    this.#patience = patience;
    this.#ping = ping;
    this.#onHang = onHang;
  }

  /** @param {{starting: boolean}} phase  whether Python is still being started */
  start({ starting }) {
    this.stop();
    if (!(this.#patience > 0 && Number.isFinite(this.#patience))) return;
    const patience = starting ? Math.max(this.#patience, LEAST_FOR_START_MS) : this.#patience;
    // Looks are counted, not time: a laptop that slept, or a tab whose timers are held back, is no reason to bark.
    this.#looking = setInterval(() => {
      if (this.#silent >= LOOKS) {
        this.stop();
        this.#onHang();
        return;
      }
      this.#silent += 1;
      this.#ping();
    }, patience / LOOKS);
  }

  /** The worker lives. */
  sign() {
    this.#silent = 0;
  }

  stop() {
    clearInterval(this.#looking);
    this.#silent = 0;
  }
}
