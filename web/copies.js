/**
 * The directories that a database has or had on the origin private file system: one has its files, and others what was there
 * before, what is being made, and what was set aside.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { NO_ROOM } from "./sqlite.js";

/** @typedef {import("./place.js").Place} Place */
/** @typedef {{read(view: ArrayBufferView, options: {at: number}): number, write(view: ArrayBufferView, options: {at: number}): number, truncate(size: number): void, flush(): void, close(): void}} Handle */
/** @typedef {{createSyncAccessHandle(options?: {mode: string}): Promise<Handle>}} Openable  A file, as TypeScript knows it only in workers. */

/**
 * @typedef {object} Copy
 * @property {string} name  Of the directory.
 * @property {number} copy  Its number; 0 is the first.
 * @property {boolean} complete  Whether it can be opened: of those the highest has the files of the database.
 * @property {boolean} aside  Whether it was set aside.
 */

// Written into a directory when its copy is complete.
const COMPLETE = "complete";
// Before that, which request its files come from.
const ORIGIN = "origin";
// Why it is not opened any more.
const SET_ASIDE = "set-aside";
// Where the pool of SQLite keeps its files, each behind a header that begins with its name.
const POOL = ".opaque";
const POOL_HEADER_BYTES = 4096;
const DATABASE = "/durably.db";
const COPY_BYTES = 1 << 20;
const COPY_TRIES = 5;

/**
 * @param {Place} place
 * @param {number} copy
 */
export function directoryOf(place, copy) {
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
 * @returns {Promise<Copy[]>}
 */
export async function copiesOf(place) {
  const base = /** @type {string} */ (place.directory.split("/")[1]);
  const found = [];
  for await (const [name, entry] of (await parentOf(place)).entries()) {
    const [, number] = name.startsWith(base) ? (/^(?:\.(\d+))?$/.exec(name.slice(base.length)) ?? []) : [];
    if (name !== base && number === undefined) continue;
    const copy = Number(number ?? 0);
    const directory = /** @type {FileSystemDirectoryHandle} */ (entry);
    const complete = copy === 0 || (await has(directory, COMPLETE));
    found.push({ name, copy, complete, aside: await has(directory, SET_ASIDE) });
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
export async function copied(place, source) {
  const parent = await parentOf(place);
  let copy = await lastOf(place, source);
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
 * The highest number that a directory of the database has. No number is used twice: somebody who was succeeded may still be about
 * to delete what had it before.
 *
 * @param {Place} place
 * @param {number} [least]
 */
async function lastOf(place, least = 0) {
  return Math.max(...(await copiesOf(place)).map(({ copy }) => copy), least);
}

/**
 * Make a directory for files that are to become those of the database.
 *
 * @param {Place} place
 * @returns {Promise<number>}
 */
export async function newCopy(place) {
  const copy = (await lastOf(place)) + 1;
  await (await parentOf(place)).getDirectoryHandle(nameOf(directoryOf(place, copy)), { create: true });
  return copy;
}

/**
 * From now on these files are those of the database. Happens in one step, or not at all.
 *
 * @param {Place} place
 * @param {number} copy
 * @param {string | null} origin  the id of the request that they come from
 */
export async function complete(place, copy, origin) {
  const directory = await (await parentOf(place)).getDirectoryHandle(nameOf(directoryOf(place, copy)));
  if (origin !== null) await write(directory, ORIGIN, origin);
  await directory.getFileHandle(COMPLETE, { create: true });
}

/**
 * The request that the files come from, if they were imported.
 *
 * @param {Place} place
 * @param {number} copy
 * @returns {Promise<string | null>}
 */
export async function originOf(place, copy) {
  const directory = await (await parentOf(place)).getDirectoryHandle(nameOf(directoryOf(place, copy)), { create: true });
  return read(directory, ORIGIN);
}

/**
 * @param {Place} place
 * @param {string} name  of the directory
 */
export async function discard(place, name) {
  await (await parentOf(place)).removeEntry(name, { recursive: true });
}

/**
 * Keep these files, and never open them again as those of the database.
 *
 * @param {Place} place
 * @param {number} copy
 * @param {string} reason
 */
export async function setAside(place, copy, reason) {
  const directory = await (await parentOf(place)).getDirectoryHandle(nameOf(directoryOf(place, copy)));
  await write(directory, SET_ASIDE, JSON.stringify({ reason, at: new Date().toISOString() }));
}

/**
 * What was set aside, the oldest first.
 *
 * @param {Place} place
 * @returns {Promise<import("./types.js").SetAside[]>}
 */
export async function asideOf(place) {
  const parent = await parentOf(place);
  const found = [];
  for (const { name, aside } of await copiesOf(place)) {
    if (!aside) continue;
    const directory = await parent.getDirectoryHandle(name);
    const { reason, at } = JSON.parse((await read(directory, SET_ASIDE)) || '{"reason":"","at":""}');
    found.push({ name, bytes: (await databaseIn(directory))?.size ?? 0, reason, at });
  }
  return found.sort((one, other) => (one.at < other.at ? -1 : 1));
}

/**
 * The main file of the database in a directory, as it is.
 *
 * @param {Place} place
 * @param {string} name  of the directory
 * @returns {Promise<Blob>}
 */
export async function fileOf(place, name) {
  return (await databaseIn(await (await parentOf(place)).getDirectoryHandle(name))) ?? new Blob([]);
}

/** @param {FileSystemDirectoryHandle} directory */
async function databaseIn(directory) {
  if (!(await directory.getDirectoryHandle(POOL).then(() => true, () => false))) return undefined;
  for await (const entry of (await directory.getDirectoryHandle(POOL)).values()) {
    const file = await /** @type {FileSystemFileHandle} */ (entry).getFile();
    if (await isDatabase(file)) return file.slice(POOL_HEADER_BYTES);
  }
  return undefined;
}

/** @param {File} file  of a pool */
async function isDatabase(file) {
  return (await file.slice(0, DATABASE.length + 1).text()) === `${DATABASE}\0`;
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 */
async function has(directory, name) {
  return directory.getFileHandle(name).then(() => true, () => false);
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 */
async function read(directory, name) {
  if (!(await has(directory, name))) return null;
  return (await (await directory.getFileHandle(name)).getFile()).text();
}

/**
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 * @param {string} text
 */
async function write(directory, name, text) {
  const file = /** @type {Openable} */ (/** @type {unknown} */ (await directory.getFileHandle(name, { create: true })));
  const handle = await file.createSyncAccessHandle();
  try {
    handle.truncate(0);
    writeAll(handle, new TextEncoder().encode(text), 0);
    handle.flush();
  } finally {
    handle.close();
  }
}

/**
 * @param {Handle} handle
 * @param {ArrayBufferView} bytes
 * @param {number} at
 */
export function writeAll(handle, bytes, at) {
  // Some browsers write what there is room for, and say so only in this way.
  if (handle.write(bytes, { at }) !== bytes.byteLength) throw new DurablyError("StorageFull", NO_ROOM);
}

/**
 * @param {unknown} error
 * @returns {unknown}  the same, by our name for it
 */
export function roomFor(error) {
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
    files.push({ name, isDatabase: await isDatabase(file) });
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
