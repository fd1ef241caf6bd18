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

import { DurablyError, failureOf } from "./failures.js";

/** @typedef {import("./place.js").Place} Place */
/** @typedef {{read(view: ArrayBufferView, options: {at: number}): number, write(view: ArrayBufferView, options: {at: number}): number, truncate(size: number): void, flush(): void, close(): void}} Handle */
/** @typedef {{createSyncAccessHandle(options?: {mode: string}): Promise<Handle>}} Openable  A file, as TypeScript knows it only in workers. */

const OWNERS = "durably-web.owners";
// Written into a directory when its copy is complete.
const COMPLETE = "complete";
// Where the pool of SQLite keeps its files, each behind a header that begins with its name.
const POOL = ".opaque";
const DATABASE = "/durably.db";
const COPY_BYTES = 1 << 20;
const COPY_TRIES = 5;
const NO_ROOM = "no room left for the files of the database";
// A worker that is gone can hold its files for a while after its lock.
const HANDLES_PATIENCE_MS = 10_000;

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
  #place;
  #onLost;
  #view = new Uint32Array(1);

  /**
   * @param {Place} place
   * @param {Handle} handle
   * @param {number} term
   * @param {number} copy  which directory holds the files; 0 is the first
   * @param {() => void} onLost  called when somebody else has begun a term
   */
  constructor(place, handle, term, copy, onLost) {
    this.#onLost = onLost;
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
    const root = await navigator.storage.getDirectory();
    const owners = await root.getDirectoryHandle(OWNERS, { create: true });
    const file = /** @type {Openable} */ (/** @type {unknown} */ (await owners.getFileHandle(place.owner, { create: true })));
    // Shared, where the browser can: elsewhere the option is ignored, and the handle is exclusive.
    const handle = await patiently(() => file.createSyncAccessHandle({ mode: "readwrite-unsafe" }));
    try {
      // By chance: two that begin in the same moment must not have the same one.
      const term = crypto.getRandomValues(new Uint32Array(1));
      writeAll(handle, term, 0);
      handle.flush();
      const newest = Math.max(0, ...(await copiesOf(place)).filter(({ complete }) => complete).map(({ copy }) => copy));
      const ownership = new Ownership(place, handle, Number(term[0]), newest, onLost);
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
    const parent = await parentOf(this.#place);
    for (const { name, copy, complete } of await copiesOf(this.#place)) {
      // A complete one behind ours is that of a successor.
      if (copy === this.copy || (complete && copy > this.copy) || !this.holds()) continue;
      // Held by a tab that sleeps: the next term finds it again.
      await parent.removeEntry(name, { recursive: true }).catch(() => {});
    }
  }

  release() {
    this.#handle.close();
  }
}

/**
 * Whether this browser lets two workers open one file at a time, without which nobody can tell a sleeper that it was succeeded.
 *
 * @returns {Promise<boolean>}
 */
export async function canSucceedSleepers() {
  const root = await navigator.storage.getDirectory();
  const owners = await root.getDirectoryHandle(OWNERS, { create: true });
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

/**
 * @param {Place} place
 * @param {number} copy
 */
function directoryOf(place, copy) {
  return copy === 0 ? place.directory : `${place.directory}.${copy}`;
}

/** @param {Place} place */
async function parentOf(place) {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(/** @type {string} */ (place.directory.split("/")[0]), { create: true });
}

/**
 * The directories that the database has or had.
 *
 * @param {Place} place
 * @returns {Promise<{name: string, copy: number, complete: boolean}[]>}
 */
async function copiesOf(place) {
  const base = /** @type {string} */ (place.directory.split("/")[1]);
  const found = [];
  for await (const [name, entry] of (await parentOf(place)).entries()) {
    const [, number] = name.startsWith(base) ? (/^(?:\.(\d+))?$/.exec(name.slice(base.length)) ?? []) : [];
    if (name !== base && number === undefined) continue;
    const copy = Number(number ?? 0);
    const directory = /** @type {FileSystemDirectoryHandle} */ (entry);
    const complete = copy === 0 || (await directory.getFileHandle(COMPLETE).then(() => true, () => false));
    found.push({ name, copy, complete });
  }
  return found;
}

/**
 * Copy the files of the database into a new directory, while a sleeper may wake and finish the batch that it was in. It
 * can do no more than that, so a copy without a change in between comes about.
 *
 * @param {Place} place
 * @param {number} source
 * @returns {Promise<number>} which directory has the copy
 */
async function copied(place, source) {
  const parent = await parentOf(place);
  // No name is used twice: somebody who was succeeded may still be about to delete what had it before.
  let copy = Math.max(...(await copiesOf(place)).map(({ copy }) => copy), source);
  for (let attempt = 1; ; attempt++) {
    copy += 1;
    const directory = await parent.getDirectoryHandle(nameOf(directoryOf(place, copy)), { create: true });
    try {
      const from = await poolOf(parent, nameOf(directoryOf(place, source)));
      // Without one, the sleeper has not stored anything yet.
      if (from) await copyPool(from, await directory.getDirectoryHandle(POOL, { create: true }));
      await directory.getFileHandle(COMPLETE, { create: true });
      return copy;
    } catch (error) {
      // A file that changes while it is read cannot be read.
      if (attempt === COPY_TRIES || failureOf(error).name !== "NotReadableError") throw error;
    }
  }
}

/**
 * @param {FileSystemDirectoryHandle} parent
 * @param {string} name
 */
async function poolOf(parent, name) {
  try {
    return await (await parent.getDirectoryHandle(name)).getDirectoryHandle(POOL);
  } catch (error) {
    if (failureOf(error).name === "NotFoundError") return undefined;
    throw error;
  }
}

/**
 * @param {Handle} handle
 * @param {ArrayBufferView} bytes
 * @param {number} at
 */
function writeAll(handle, bytes, at) {
  // Some browsers write what there is room for, and say so only in this way.
  if (handle.write(bytes, { at }) !== bytes.byteLength) throw new DurablyError("StorageFull", NO_ROOM);
}

/**
 * @param {unknown} error
 * @returns {unknown}  the same, by our name for it
 */
function roomFor(error) {
  return failureOf(error).name === "QuotaExceededError" ? new DurablyError("StorageFull", NO_ROOM, { cause: error }) : error;
}

/** @param {string} directory */
function nameOf(directory) {
  return /** @type {string} */ (directory.split("/")[1]);
}

/**
 * The database goes before its write-ahead log: a checkpoint in between leaves its pages in the log, where opening the copy
 * finds them.
 *
 * @param {FileSystemDirectoryHandle} from
 * @param {FileSystemDirectoryHandle} to
 */
async function copyPool(from, to) {
  const files = [];
  for await (const [name, entry] of from.entries()) {
    const file = await /** @type {FileSystemFileHandle} */ (entry).getFile();
    files.push({ name, isDatabase: (await file.slice(0, DATABASE.length + 1).text()) === `${DATABASE}\0` });
  }
  files.sort((one, other) => Number(other.isDatabase) - Number(one.isDatabase));
  for (const { name } of files) {
    const file = await (await from.getFileHandle(name)).getFile();
    const target = /** @type {Openable} */ (/** @type {unknown} */ (await to.getFileHandle(name, { create: true })));
    const handle = await target.createSyncAccessHandle();
    try {
      handle.truncate(0);
      for (let at = 0; at < file.size; at += COPY_BYTES) {
        writeAll(handle, new Uint8Array(await file.slice(at, at + COPY_BYTES).arrayBuffer()), at);
      }
      handle.flush();
    } finally {
      handle.close();
    }
  }
}
