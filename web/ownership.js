/**
 * Which worker owns the files of a database, beyond its Web Lock.
 *
 * A tab can fall asleep while it holds the lock and the files. Whoever takes over from it cannot open these files, and the
 * sleeper may wake in the middle of a write. So the successor first writes its own term into a small file that both can reach, then
 * copies the database into a directory of its own. The sleeper reads the term before every batch, and after every commit before
 * anybody is told of it: what it committed under its own term is in the copy, what it commits later is acknowledged to nobody,
 * and that is one batch at most.
 *
 * Where a browser cannot share the small file, a sleeper cannot be succeeded: its files stay locked until its tab goes.
 *
 * @module
 */

import { complete, copied, copiesOf, directoryOf, discard, newCopy, originOf, roomFor, setAside, writeAll } from "./copies.js";
import { DurablyError, failureOf } from "./failures.js";

/** @typedef {import("./copies.js").Handle} Handle */
/** @typedef {import("./copies.js").Openable} Openable */
/** @typedef {import("./place.js").Place} Place */

const OWNERS = "durably-web.owners";
// A worker that is gone can hold its files for a while after its lock.
const HANDLES_PATIENCE_MS = 10_000;
// What asks for a look waits for it.
const LOOK_PATIENCE_MS = 1_000;

/** The files are held by another worker, for longer than one needs to go. */
export class FilesLocked extends DurablyError {
  /** @param {unknown} cause */
  constructor(cause) {
    super("StoreUnavailable", "the files of the database stay locked by another tab or worker", { cause });
  }
}

/** The right to the files of a database, for one term. */
export class Ownership {
  #handle;
  #owners;
  #place;
  #onLost;
  #view = new Uint32Array(1);
  /** @type {Promise<boolean> | undefined} */
  #look;

  /**
   * @param {Place} place
   * @param {FileSystemDirectoryHandle} owners
   * @param {Handle} handle
   * @param {number} term
   * @param {number} copy  which directory holds the files; 0 is the first
   * @param {() => void} onLost  called when somebody else has begun a term
   */
  constructor(place, owners, handle, term, copy, onLost) {
    this.#onLost = onLost;
    this.#owners = owners;
    this.#place = place;
    this.#handle = handle;
    this.term = term;
    this.copy = copy;
  }

  /**
   * Begin a term. Only for the holder of the lock.
   *
   * @param {Place} place
   * @param {boolean} asleep  whether the owner before may still live: then the files are copied
   * @param {() => void} onLost  called, once or more often, when somebody else has begun a term
   * @returns {Promise<Ownership>}
   */
  static async take(place, asleep, onLost) {
    const owners = await ownersOf();
    const file = /** @type {Openable} */ (/** @type {unknown} */ (await owners.getFileHandle(place.owner, { create: true })));
    // Shared, where the browser can: elsewhere the option is ignored, and the handle is exclusive.
    const handle = await patiently(() => file.createSyncAccessHandle({ mode: "readwrite-unsafe" }));
    try {
      // By chance: two that begin in the same moment must not have the same one.
      const term = crypto.getRandomValues(new Uint32Array(1));
      writeAll(handle, term, 0);
      handle.flush();
      const ownership = new Ownership(place, owners, handle, Number(term[0]), await currentOf(place), onLost);
      if (asleep) await ownership.leave();
      return ownership;
    } catch (error) {
      handle.close();
      throw roomFor(error);
    }
  }

  /** Leave the files to whoever holds them, and go on with a copy. */
  async leave() {
    try {
      this.copy = await copied(this.#place, this.copy);
    } catch (error) {
      throw roomFor(error);
    }
  }

  /**
   * Keep the files as they are, and go on with an empty database.
   *
   * @param {string} reason
   */
  async setAside(reason) {
    try {
      await setAside(this.#place, this.copy, reason);
      this.copy = await currentOf(this.#place);
    } catch (error) {
      throw roomFor(error);
    }
  }

  /** The request that the files come from, if they were imported. */
  origin() {
    return originOf(this.#place, this.copy);
  }

  /**
   * Whether the files are still there, and not only their handles: those go on working when the user has cleared the site's data, and
   * nothing that is written is kept. One look at a time, for all who ask meanwhile. A file system that does not answer says nothing:
   * browsers were seen to leave such a question open for ever.
   *
   * @returns {Promise<boolean>}
   */
  stands() {
    this.#look ??= this.#lookForFiles().finally(() => (this.#look = undefined));
    return this.#look;
  }

  async #lookForFiles() {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const silence = new Promise((resolve) => (timer = setTimeout(resolve, LOOK_PATIENCE_MS)));
    try {
      await Promise.race([this.#owners.getFileHandle(this.#place.owner), silence]);
      return true;
    } catch (error) {
      return failureOf(error).name !== "NotFoundError";
    } finally {
      clearTimeout(timer);
    }
  }

  /** OPFS directory of the files. */
  get directory() {
    return directoryOf(this.#place, this.copy);
  }

  /** Whether nobody has begun another term. Takes a few microseconds. */
  holds() {
    this.#handle.read(this.#view, { at: 0 });
    if (this.#view[0] === this.term) return true;
    this.#onLost();
    return false;
  }

  /** Delete what earlier terms have left behind, as far as nobody holds it. */
  async tidy() {
    for (const { name, copy, complete, aside } of await copiesOf(this.#place)) {
      // A complete one behind ours is that of a successor.
      if (aside || copy === this.copy || (complete && copy > this.copy) || !this.holds()) continue;
      // Held by a tab that sleeps: the next term finds it again.
      await discard(this.#place, name).catch(() => {});
    }
  }

  release() {
    this.#handle.close();
  }
}

/**
 * Which directory has the files of the database: the newest that is complete. Where all of them were set aside, a new one.
 *
 * @param {Place} place
 */
async function currentOf(place) {
  const copies = await copiesOf(place);
  const usable = copies.filter(({ complete, aside }) => complete && !aside).map(({ copy }) => copy);
  if (usable.length > 0) return Math.max(...usable);
  if (!copies.some(({ aside }) => aside)) return 0;
  const copy = await newCopy(place);
  await complete(place, copy, null);
  return copy;
}

/** The directory with what workers know of each other. */
export async function ownersOf() {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(OWNERS, { create: true });
}

/**
 * Whether this browser lets two workers open one file at a time, without which nobody can tell a sleeper that it was succeeded.
 *
 * @returns {Promise<boolean>}
 */
export async function canSucceedSleepers() {
  const owners = await ownersOf();
  const name = `probe-${crypto.randomUUID()}`;
  const file = /** @type {Openable} */ (/** @type {unknown} */ (await owners.getFileHandle(name, { create: true })));
  /** @type {Handle[]} */
  const handles = [];
  try {
    for (let opened = 0; opened < 2; opened++) handles.push(await file.createSyncAccessHandle({ mode: "readwrite-unsafe" }));
    return true;
  } catch {
    return false;
  } finally {
    for (const handle of handles) handle.close();
    await owners.removeEntry(name).catch(() => {});
  }
}

/**
 * Open something that another worker may not have let go of yet.
 *
 * @template T
 * @param {() => Promise<T>} open
 * @returns {Promise<T>}
 */
export async function patiently(open) {
  const deadline = performance.now() + HANDLES_PATIENCE_MS;
  for (let pause = 10; ; pause = Math.min(pause * 2, 500)) {
    try {
      return await answered(open());
    } catch (error) {
      if (failureOf(error).name !== "NoModificationAllowedError") throw error;
      if (performance.now() > deadline) {
        throw new FilesLocked(error);
      }
      await new Promise((resume) => setTimeout(resume, pause));
    }
  }
}

/**
 * @template T
 * @param {Promise<T>} request  to the file system
 * @returns {Promise<T>} rejects when there is no answer
 */
async function answered(request) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => {
      reject(new DurablyError("StoreUnavailable", "the browser's file system does not answer: reload the page"));
    }, HANDLES_PATIENCE_MS);
  });
  try {
    return await /** @type {Promise<T>} */ (Promise.race([request, silence]));
  } finally {
    clearTimeout(timer);
  }
}
