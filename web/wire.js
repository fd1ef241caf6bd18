/**
 * What a page passes, as requests carry it. An option that there is not is refused: it would be a silent mistake.
 *
 * @module
 */

import { failureOf, invalid } from "./failures.js";

/** @typedef {import("./types.js").EncryptionKey} EncryptionKey */
/** @typedef {import("./types.js").Instant} Instant */
/** @typedef {import("./types.js").Query} Query */
/** @typedef {import("./types.js").RequestOptions} RequestOptions */
/** @typedef {import("./types.js").TriggerOptions} TriggerOptions */

const ITEM_OPTIONS = ["idempotencyKey", "concurrencyKey", "coalesce", "labels", "priority", "delay", "runAt"];
const SCHEDULE_OPTIONS = [
  ...["name", "cron", "every", "timezone", "input", "labels"],
  ...["priority", "missed", "overlap", "catchUpWindow"],
];
const SELECTION = ["jobName", "status", "labels", "createdBefore"];
const RUN_FILTER = ["jobName", "status", "labels", "schedule", "limit", "offset", "after"];
const LIMITS = ["signal", "timeout"];
const KEY_BYTES = 32;
// Python in a browser has a small stack: a few thousand levels end it, and not only the request.
const MOST_LEVELS = 500;

/**
 * How long to wait, apart from all else that is in the same object.
 *
 * @template {object} T
 * @param {T & RequestOptions} options
 * @returns {[RequestOptions, Omit<T, keyof RequestOptions>]}
 */
export function limitsOf(options) {
  if (typeof options !== "object" || options === null) throw invalid(`options are an object, not ${options}`);
  const { signal, timeout, ...rest } = options;
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalid(`signal is an AbortSignal, not ${signal}`);
  // Infinity is no duration on the wire, but it is a wait.
  if (timeout !== Infinity) duration(timeout, "timeout");
  return [{ signal, timeout }, rest];
}

/**
 * Options that are about the wait and nothing else.
 *
 * @param {RequestOptions} options
 * @returns {RequestOptions}
 */
export function onlyLimits(options = {}) {
  const [limits, rest] = limitsOf(options);
  known("a request", rest, LIMITS);
  return limits;
}

/**
 * @param {unknown} input
 * @returns {unknown}
 */
export function inputOf(input = {}) {
  if (typeof input === "function" || typeof input === "symbol") throw invalid(`the input is not JSON: it is a ${typeof input}`);
  return input;
}

/**
 * @param {unknown} value
 * @returns {string}
 */
export function jsonOf(value) {
  let text;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    throw invalid(`the input is not JSON: ${failureOf(error).message}`, { cause: error });
  }
  if (levelsOf(text) > MOST_LEVELS) throw invalid(`the input is nested deeper than ${MOST_LEVELS} levels`);
  return text;
}

/**
 * How deep arrays and objects are nested in a JSON text.
 *
 * @param {string} text
 */
function levelsOf(text) {
  let [levels, most] = [0, 0];
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "[" || character === "{") most = Math.max(most, ++levels);
    else if (character === "]" || character === "}") levels -= 1;
    else if (character === '"') at = endOfString(text, at);
  }
  return most;
}

/**
 * @param {string} text  JSON
 * @param {number} start  where a string begins
 * @returns {number} where it ends
 */
function endOfString(text, start) {
  for (let end = text.indexOf('"', start + 1); ; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text[end - 1 - escapes] === "\\") escapes += 1;
    if (escapes % 2 === 0) return end;
  }
}

/**
 * @param {TriggerOptions} options
 * @returns {Record<string, unknown>}
 */
export function triggerFields(options) {
  const { delay, runAt, debounce, ...same } = known("a trigger", options, [...ITEM_OPTIONS, "debounce"]);
  const burst = typeof debounce === "object" && debounce !== null ? known("debounce", debounce, ["delay", "maxDelay"]) : { delay: debounce };
  return {
    ...same,
    delayMs: duration(delay, "delay"),
    runAt: runAt === undefined ? undefined : instantOf(runAt, "runAt"),
    debounceMs: duration(burst.delay, "debounce"),
    debounceMaxMs: duration(burst.maxDelay, "maxDelay"),
  };
}

/**
 * @param {Omit<import("./types.js").ScheduleOptions, keyof RequestOptions>} options
 * @returns {Record<string, unknown>}
 */
export function scheduleFields(options) {
  const { input, every, catchUpWindow, ...same } = known("a schedule", options, SCHEDULE_OPTIONS);
  if ((same.cron === undefined) === (every === undefined)) {
    throw invalid('a schedule has either cron, such as "0 7 * * mon-fri", or every, in milliseconds');
  }
  return {
    ...same,
    input: inputOf(input),
    everyMs: duration(every, "every"),
    catchUpWindowMs: duration(catchUpWindow, "catchUpWindow"),
  };
}

/**
 * @param {any} answer
 * @returns {import("./types.js").Schedule}
 */
export function scheduled({ everyMs, catchUpWindowMs, ...same }) {
  return { ...same, every: everyMs, catchUpWindow: catchUpWindowMs };
}

/** @param {import("./types.js").Item[]} items */
export function itemsOf(items) {
  if (!Array.isArray(items)) throw invalid(`the items of triggerMany are a list, not ${items}`);
  return items.map(itemFields);
}

/** @param {import("./types.js").Item} item */
function itemFields(item) {
  if (typeof item !== "object" || item === null) throw invalid("an item of triggerMany is {input, …} with options beside it");
  const { input, ...options } = known("an item of triggerMany", item, ["input", ...ITEM_OPTIONS]);
  return { input: inputOf(input), ...triggerFields(options) };
}

/**
 * @param {{runId: string, disposition: import("./types.js").Triggered["disposition"]}} answer
 * @returns {import("./types.js").Triggered}
 */
export function triggered({ runId, disposition }) {
  return { id: runId, disposition };
}

/**
 * @param {{after?: number, signal?: AbortSignal}} options
 * @returns {{after?: number, signal?: AbortSignal}}
 */
export function subscribeOptions(options) {
  const [{ signal }, rest] = limitsOf(known("subscribe", options, ["after", "signal"]));
  const { after } = rest;
  if (after !== undefined && !(Number.isSafeInteger(after) && after >= 0)) throw invalid(`after is the seq of an event, not ${after}`);
  return { after, signal };
}

/** @param {import("./types.js").Selection} selection */
export function selectionQuery(selection = {}) {
  return queryOf(known("a selection of runs", selection, SELECTION));
}

/** @param {import("./types.js").RunFilter} filter */
export function filterQuery(filter = {}) {
  return queryOf(known("a filter of runs", filter, RUN_FILTER));
}

/**
 * @param {Record<string, any>} conditions
 * @returns {Query}
 */
function queryOf({ jobName, status, labels = {}, createdBefore, ...rest }) {
  /** @type {Query} */
  const query = {};
  if (jobName !== undefined) {
    const names = listOf(jobName, "jobName");
    query.jobName = names.length === 1 ? names[0] : names;
  }
  if (status !== undefined) query.status = listOf(status, "status").join(",");
  for (const [key, value] of Object.entries(rest)) if (value !== undefined) query[key] = String(value);
  for (const [key, value] of Object.entries(labels)) query[`label.${key}`] = String(value);
  if (createdBefore !== undefined) query.createdBefore = instantOf(createdBefore, "createdBefore");
  return query;
}

/**
 * @param {unknown} value
 * @param {string} what
 * @returns {string[]}
 */
function listOf(value, what) {
  /** @type {any[]} */
  const list = [value].flat();
  // Who asks for the runs of none would get those of all.
  if (list.length === 0) throw invalid(`${what} is an empty list: leave it out to mean all`);
  if (!list.every((one) => typeof one === "string" && one !== "")) throw invalid(`${what} is a name, or a list of names, not ${jsonOf(value)}`);
  return list;
}

/** @param {{olderThan: Instant | number, limit?: number}} options */
export function purgeFields(options) {
  const { olderThan, limit } = known("purgeRuns", options, ["olderThan", "limit"]);
  if (typeof olderThan === "number") return { olderThanMs: duration(olderThan, "olderThan"), limit };
  return { olderThan: instantOf(olderThan, "olderThan"), limit };
}

/**
 * @param {Instant} value
 * @param {string} what
 */
export function instantOf(value, what) {
  if (typeof value === "string") return value;
  if (value instanceof Date && !Number.isNaN(value.getTime())) return value.toISOString();
  throw invalid(`${what} is a valid Date, or an ISO 8601 text with a zone, not ${value}`);
}

/**
 * @param {unknown} value
 * @param {string} what
 * @returns {number | undefined}
 */
function duration(value, what) {
  if (value === undefined) return undefined;
  // JSON would make null of what is not finite, which is no duration at all.
  if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value;
  throw invalid(`${what} is a number of milliseconds, 0 or more, not ${value}`);
}

/**
 * The keys as bytes, for the worker.
 *
 * @param {EncryptionKey | EncryptionKey[]} given
 * @returns {Promise<Uint8Array[]>}
 */
export async function keysOf(given) {
  const keys = Array.isArray(given) ? given : [given];
  if (keys.length === 0) throw wrongKey("there is none");
  return Promise.all(keys.map(bytesOfKey));
}

/**
 * @param {EncryptionKey} key
 * @returns {Promise<Uint8Array>}
 */
async function bytesOfKey(key) {
  /** @type {unknown} */
  let bytes = key;
  if (typeof CryptoKey !== "undefined" && key instanceof CryptoKey) {
    try {
      bytes = new Uint8Array(await crypto.subtle.exportKey("raw", key));
    } catch (error) {
      throw wrongKey(`this CryptoKey cannot be exported: ${failureOf(error).message}`);
    }
  }
  if (bytes instanceof Uint8Array && bytes.length === KEY_BYTES) return new Uint8Array(bytes);
  throw wrongKey(bytes instanceof Uint8Array ? `this one has ${bytes.length} bytes` : `this is ${bytes === null ? "null" : `a ${typeof bytes}`}`);
}

/** @param {string} reason */
function wrongKey(reason) {
  return invalid(
    `encryptionKey is ${KEY_BYTES} random bytes, such as crypto.getRandomValues(new Uint8Array(${KEY_BYTES})), or an AES-GCM ` +
      `CryptoKey of 256 bits that may be exported; ${reason}`,
  );
}

/**
 * @param {string} what
 * @param {object} options
 * @param {string[]} names
 * @returns {Record<string, any>}
 */
function known(what, options, names) {
  const unknown = Object.keys(options).filter((name) => !names.includes(name));
  if (unknown.length > 0) throw invalid(`${what} has no ${unknown.join(", ")}; it has ${names.join(", ")}`);
  return options;
}
