/**
 * Fetching the files that a boot needs, with errors that name the file and the cause.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";

/**
 * @param {string} url
 * @param {string} what  how a message calls the file
 * @returns {Promise<Response>}
 */
async function fetchFile(url, what) {
  let response;
  try {
    // Asks the server whether a cached copy is still good: an edited job file runs at the next visit.
    response = await fetch(url, { cache: "no-cache" }).catch(() => {
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
  return (await fetchFile(url, what)).text();
}

/**
 * @param {string} url
 * @param {string} what
 */
export async function fetchBytes(url, what) {
  return new Uint8Array(await (await fetchFile(url, what)).arrayBuffer());
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
