/**
 * Whether there is a network, and why a request failed. A browser says "Failed to fetch" and no more; what it knows beyond that, and
 * what a second look tells, is put together here.
 *
 * @module
 */

/** @typedef {"Offline" | "Unreachable" | "CrossOriginRefused" | "MixedContent"} Kind  As in `durably_web/errors.py`. */

// How long a look may take that finds out why a request failed.
const LOOK_MS = 5_000;

// What `fetch` says of a network, in Chromium, Firefox and Safari; of arguments that are wrong it says other things.
const SPEAKS_OF_NETWORK = /^(Failed to fetch|NetworkError when|Load failed|The network connection was lost|The Internet connection)/;

const own = globalThis.fetch;

/** @type {boolean | undefined} what was heard last */
let heard;

/** @type {((online: boolean) => void)[]} */
const listeners = [];

/**
 * The browser says that there is a network, or none. In Chromium the page hears of it, and its workers only see `onLine` change.
 *
 * @param {boolean} online
 */
export function hear(online) {
  heard = online;
  for (const listener of listeners) listener(online);
}

export function isOnline() {
  return (heard ?? true) && (globalThis.navigator?.onLine ?? true);
}

/** @param {(online: boolean) => void} listener  called whenever something is heard, also if it is the same */
export function onHearing(listener) {
  listeners.push(listener);
}

/** From now on, in a worker: hear what the browser says, and let `fetch` reject with why it failed. */
export function watchNetwork() {
  addEventListener("online", () => hear(true));
  addEventListener("offline", () => hear(false));
  globalThis.fetch = fetchAndExplain;
}

/**
 * As `fetch`. Where the network is to blame, the error's `name` is a `Kind`, and its message says what happened and what to do; it has
 * `url`, without what may be secret, and is a TypeError as before.
 *
 * @param {RequestInfo | URL} resource
 * @param {RequestInit} [options]
 */
async function fetchAndExplain(resource, options) {
  try {
    return await own.call(globalThis, resource, options);
  } catch (error) {
    const url = error instanceof TypeError && SPEAKS_OF_NETWORK.test(error.message) ? urlOf(resource) : null;
    if (url === null) throw error;
    const [name, message] = await explain(url.href);
    throw Object.assign(new TypeError(message, { cause: error }), { name, url: place(url.href) });
  }
}

/**
 * Where a request goes; `null` for what is no address, and for what needs no network.
 *
 * @param {RequestInfo | URL} resource
 */
function urlOf(resource) {
  try {
    const url = new URL(resource instanceof Request ? resource.url : resource, globalThis.location.href);
    return /^https?:$/.test(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

/**
 * An address without what may be secret in it.
 *
 * @param {string} address
 */
export function place(address) {
  const { origin, pathname } = new URL(address, globalThis.location.href);
  return origin + pathname;
}

/**
 * Why a request to an address may have failed, as far as is known without another one; and whether another one would tell more.
 *
 * @param {string} address
 * @returns {[Kind, string, boolean]}
 */
export function explainAtOnce(address) {
  const url = new URL(address, globalThis.location.href);
  const where = place(address);
  if (!isOnline()) return ["Offline", `${where} cannot be reached: the browser is offline`, false];
  if (globalThis.isSecureContext && globalThis.location.protocol === "https:" && url.protocol === "http:" && !isLoopback(url)) {
    const advice = "ask for it by https, or from a server";
    return ["MixedContent", `${where} is not asked: this page came over https, and may not ask over http; ${advice}`, false];
  }
  if (url.origin === globalThis.origin) return ["Unreachable", unreachable(where), false];
  const message = `${where} could not be reached, or it does not let ${globalThis.origin} read its answers (CORS)`;
  return ["Unreachable", message, true];
}

/**
 * Why a request to an address may have failed, with a look where that helps: a server that answers what nobody can read is there.
 *
 * @param {string} address
 * @returns {Promise<[Kind, string]>}
 */
export async function explain(address) {
  const [kind, message, doubtful] = explainAtOnce(address);
  if (!doubtful) return [kind, message];
  const where = place(address);
  const there = await answers(new URL("/", where).href, { mode: "no-cors", method: "HEAD" });
  // It may have gone in the meantime.
  if (!isOnline()) return explain(address);
  if (!there) return ["Unreachable", unreachable(where)];
  return [
    "CrossOriginRefused",
    `${where} does not let ${globalThis.origin} read its answers (CORS): its server must send ` +
      `Access-Control-Allow-Origin: ${globalThis.origin}, and answer OPTIONS where the request has other headers than usual; ` +
      "or ask it from a server",
  ];
}

/**
 * Whether the site that this page came from can be reached, past every cache.
 *
 * @returns {Promise<boolean>}
 */
export async function reachesHome() {
  if (!isOnline()) return false;
  // HEAD is what no service worker of ours answers.
  return answers(globalThis.location.href, { method: "HEAD" });
}

/** @param {string} where */
function unreachable(where) {
  return `${where} could not be reached: its server does not answer, or there is no way to it`;
}

/**
 * @param {string} url
 * @param {RequestInit} options
 */
async function answers(url, options) {
  try {
    const signal = AbortSignal.timeout(LOOK_MS);
    await own.call(globalThis, url, { ...options, cache: "no-store", credentials: "omit", signal });
    return true;
  } catch {
    return false;
  }
}

/** @param {URL} url */
function isLoopback({ hostname }) {
  return hostname === "localhost" || hostname.endsWith(".localhost") || hostname === "[::1]" || hostname.startsWith("127.");
}

/** What Python calls, as the module `durably_network`. */
export const bridge = {
  online: isOnline,
  place,
  explain,
  explain_at_once: explainAtOnce,
  reaches_home: reachesHome,
};
