/**
 * Room that is kept for a full disk: deleting needs room too, because what it changes goes into the write-ahead log first.
 *
 * @module
 */

import { failureOf } from "./failures.js";
import { ownersOf, patiently } from "./ownership.js";

/** @typedef {import("./copies.js").Handle} Handle */
/** @typedef {import("./copies.js").Openable} Openable */
/** @typedef {import("./place.js").Place} Place */

// Chromium lets a file grow by doubling it, and the log has usually grown to this size when its site has done much.
const RESERVE_BYTES = 8 << 20;
const LEAST_BYTES = 1 << 20;

export class Reserve {
  #place;
  /** @type {Handle | undefined} open while there is something in it: browsers give room back when a file is closed */
  #handle;
  #isClosed = false;

  /** @param {Place} place  only for the holder of its lock */
  constructor(place) {
    this.#place = place;
  }

  /** Whether there is room to give away. */
  get isFilled() {
    return this.#handle !== undefined;
  }

  /** Take as much room as there is, up to a bound. Where there is none, there is no reserve: that is no reason not to work. */
  async fill() {
    if (this.#handle) return;
    try {
      const name = `${this.#place.owner}.reserve`;
      const file = /** @type {Openable} */ (/** @type {unknown} */ (await (await ownersOf()).getFileHandle(name, { create: true })));
      const handle = await patiently(() => file.createSyncAccessHandle({ mode: "readwrite-unsafe" }));
      if (this.#isClosed || this.#handle || !grow(handle)) handle.close();
      else this.#handle = handle;
    } catch (error) {
      console.warn("durably-web: no room can be kept in reserve:", failureOf(error).message);
    }
  }

  /** Give the room away; whether there was any. */
  release() {
    if (!this.#handle) return false;
    this.#handle.truncate(0);
    this.#handle.close();
    this.#handle = undefined;
    return true;
  }

  /** Keep the room, and let go of the file. */
  close() {
    this.#isClosed = true;
    this.#handle?.close();
    this.#handle = undefined;
  }
}

/**
 * @param {Handle} handle
 * @returns {boolean} whether there is enough to be of use
 */
function grow(handle) {
  for (let size = RESERVE_BYTES; size >= LEAST_BYTES; size /= 2) {
    try {
      handle.truncate(size);
      return true;
    } catch {
      // So much is not there.
    }
  }
  return false;
}
