/**
 * The runs that a trigger asks for, as they will be once the engine has taken them.
 *
 * What the engine would refuse by its form alone (`durably_web/api/parsing.py` and `durably_web/arguments.py`) is not accepted here: the
 * engine gives the reason.
 *
 * @module
 */

import { countedUp, isId } from "./ulid.js";

/**
 * @typedef {object} Request
 * @property {string} id
 * @property {string} method
 * @property {string} path
 * @property {Record<string, unknown>} query
 * @property {unknown} body
 */

/**
 * @typedef {object} Asked  A run that is asked for. Instants are milliseconds.
 * @property {string} id
 * @property {string} jobName
 * @property {unknown} input
 * @property {Record<string, string>} labels
 * @property {string | null} idempotencyKey
 * @property {string | null} concurrencyKey
 * @property {number} priority
 * @property {number | null} runAt
 * @property {number} createdAt
 */

const ITEM = ["input", "idempotencyKey", "concurrencyKey", "coalesce", "labels", "priority", "delayMs", "runAt"];
const DEBOUNCE = ["debounceMs", "debounceMaxMs"];
const TRIGGER = ["jobName", ...ITEM, ...DEBOUNCE];
// Counted up, an id with the last time that there is might overflow.
const LAST_TIME = "7ZZZZZZZZZ";
const LONGEST_MS = 100 * 366 * 24 * 3600 * 1000;
const INSTANT = /^(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,3})?)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;

/**
 * @param {Request} request
 * @param {number} receivedAt
 * @returns {Asked[] | null} one for each item; `null` when it cannot be promised without the engine
 */
export function runsAsked({ id, method, path, query, body }, receivedAt) {
  if (method !== "POST" || !isId(id) || id.startsWith(LAST_TIME) || Object.keys(query).length > 0) return null;
  if (path === "/trigger") {
    const given = fields(body, TRIGGER);
    const asked = given && runAsked(given.jobName, given, id, receivedAt);
    return asked && [asked];
  }
  if (path !== "/trigger-many") return null;
  const given = fields(body, ["jobName", "items"]);
  if (given === null || !Array.isArray(given.items) || given.items.length === 0) return null;
  const runs = [];
  for (const [n, item] of given.items.entries()) {
    const options = fields(item, ITEM);
    const asked = options && runAsked(given.jobName, options, countedUp(id, n), receivedAt);
    if (asked === null) return null;
    runs.push(asked);
  }
  return runs;
}

/**
 * @param {unknown} jobName
 * @param {Record<string, unknown>} given
 * @param {string} id
 * @param {number} now
 * @returns {Asked | null}
 */
function runAsked(jobName, given, id, now) {
  const { input = {}, idempotencyKey = null, concurrencyKey = null, coalesce, labels = {}, priority = 0, delayMs, runAt } = given;
  // A run of the key may be pending: only with "queue" the engine needs no look at it.
  if (DEBOUNCE.some((name) => name in given)) return null;
  if (coalesce !== (concurrencyKey === null ? undefined : "queue")) return null;
  if (!isText(jobName) || !isTextOrNull(idempotencyKey) || !isTextOrNull(concurrencyKey)) return null;
  if (!isLabels(labels) || !isPriority(priority)) return null;
  const due = dueAt(delayMs, runAt, now);
  if (due === null) return null;
  return { id, jobName, input, labels, idempotencyKey, concurrencyKey, priority, runAt: due ?? null, createdAt: now };
}

/**
 * @param {unknown} delayMs
 * @param {unknown} runAt
 * @param {number} now
 * @returns {number | undefined | null} `undefined` for at once, `null` for what cannot be promised
 */
function dueAt(delayMs, runAt, now) {
  if (delayMs !== undefined) {
    if (runAt !== undefined || typeof delayMs !== "number" || !(delayMs >= 0 && delayMs <= LONGEST_MS)) return null;
    // As the engine rounds its seconds: nothing is due before its time.
    return now + Math.ceil(Number(((delayMs / 1000) * 1000).toFixed(6)));
  }
  return runAt === undefined ? undefined : momentOf(runAt);
}

/**
 * @param {unknown} text
 * @returns {number | null} `null` also for what only the engine can read
 */
function momentOf(text) {
  const parts = typeof text === "string" ? INSTANT.exec(text) : null;
  if (parts === null) return null;
  const [year, month, day] = parts.slice(1, 4).map(Number);
  // Date.parse() takes February 30 for a day in March.
  const date = new Date(Date.UTC(/** @type {number} */ (year), /** @type {number} */ (month) - 1, day));
  const moment = Date.parse(/** @type {string} */ (text));
  return date.getUTCDate() === day && moment > 0 ? moment : null;
}

/**
 * A JSON object with these fields only, without those that are null.
 *
 * @param {unknown} value
 * @param {string[]} names
 * @returns {Record<string, unknown> | null}
 */
function fields(value, names) {
  if (!isObject(value) || Object.keys(value).some((name) => !names.includes(name))) return null;
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null));
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * A text that is not empty and can be stored.
 *
 * @param {unknown} value
 * @returns {value is string}
 */
export function isText(value) {
  return typeof value === "string" && value !== "" && value.isWellFormed();
}

/**
 * @param {unknown} value
 * @returns {value is string | null}
 */
function isTextOrNull(value) {
  return value === null || isText(value);
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, string>}
 */
function isLabels(value) {
  return isObject(value) && Object.entries(value).every(([key, label]) => isText(key) && isText(label));
}

/**
 * @param {unknown} value
 * @returns {value is number}
 */
function isPriority(value) {
  return typeof value === "number" && Number.isInteger(value) && Math.abs(value) < 2 ** 31;
}
