/**
 * Fetching the files that a boot needs, with errors that name the file and the cause.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";

/** @typedef {import("./manifest.js").Described} Described */

/**
 * @param {string} url
 * @param {string} what  how a message calls the file
 * @param {RequestCache} cache
 * @returns {Promise<Response>}
 */
async function fetchFile(url, what, cache) {
  let response;
  try {
    response = await fetch(url, { cache }).catch(() => {
      // Offline, what was good at the last visit is good enough.
      return fetch(url, { cache: "force-cache" });
    });
  } catch (error) {
    throw new DurablyError("NotFound", `${what} ${url} could not be fetched: ${failureOf(error).message}`, {
      cause: error,
    });
  }
  if (!response.ok) {
    throw new DurablyError("NotFound", `${what} ${url} could not be fetched: the server answered ${response.status}`);
  }
  return response;
}

/**
 * @param {string} url
 * @param {string} what
 */
export async function fetchText(url, what) {
  // Asks the server whether a cached copy is still good: an edited job file runs at the next visit.
  return (await fetchFile(url, what, "no-cache")).text();
}

/**
 * @param {string} url
 * @param {string} what
 * @returns {Promise<unknown>}
 */
export async function fetchJson(url, what) {
  const text = await fetchText(url, what);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new DurablyError("NotFound", `${what} ${url} is not JSON: ${failureOf(error).message}`, { cause: error });
  }
}

/**
 * The content of a file. With a description it is that very file: a cached copy of it is good without asking the server, and
 * another one is refused with `BootFailed`.
 *
 * @param {string} url
 * @param {string} what
 * @param {Described} [described]
 * @param {(bytes: number) => void} [onBytes]  told how many more are there
 * @param {Promise<unknown>} [turn]  the file is asked for at once, and read when this resolves
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function fetchBytes(url, what, described, onBytes = () => {}, turn = undefined) {
  if (!described) return collect(await fetchFile(url, what, "no-cache"), onBytes);
  let counted = 0;
  /** @param {number} bytes */
  const count = (bytes) => {
    // Of a file that has to be fetched again, or is larger than it should be, no more than there should be.
    const more = Math.min(counted + bytes, described.bytes) - counted;
    counted += more;
    if (more > 0) onBytes(more);
  };
  for (const cache of /** @type {const} */ (["force-cache", "reload"])) {
    // Whatever the cache says, also that there is no such file, the server may know better.
    const response = await fetchFile(url, what, cache).catch((error) => {
      if (cache === "reload") throw error;
    });
    if (!response) continue;
    await turn;
    const bytes = await collect(response, count);
    if ((await integrityOf(bytes)) === described.integrity) return bytes;
  }
  throw new DurablyError(
    "BootFailed",
    `${what} ${url} is not the file that the manifest describes: it was changed, or is of another version`,
  );
}

/**
 * @param {Response} response
 * @param {(bytes: number) => void} onBytes
 */
async function collect(response, onBytes) {
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  for (const reader = response.body?.getReader(); reader; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    length += value.length;
    onBytes(value.length);
  }
  const bytes = new Uint8Array(length);
  let position = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, position);
    position += chunk.length;
  }
  return bytes;
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function integrityOf(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-384", bytes));
  return `sha384-${btoa(String.fromCharCode(...digest))}`;
}
