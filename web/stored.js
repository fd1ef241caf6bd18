/**
 * Runs as the engine would give them, read without it: which ones a query means, and their form on the wire.
 *
 * The same as `get_runs` of `durably_web/store/operations/reading.py` and `Run.to_wire()`. Values are passed on as the texts that they are
 * stored as, so that no number and no key changes on the way. Where Python would have to look closer, `NeedsEngine` is thrown.
 *
 * @module
 */

import { isText } from "./asked.js";

/** @typedef {import("./asked.js").Asked} Asked */
/** @typedef {import("./sealing.js").Sealer} Sealer */
/** @typedef {import("./sqlite.js").Connection} Connection */
/** @typedef {import("./values.js").WireValue} WireValue */

/**
 * @typedef {object} Filter  Runs that meet all conditions, newest first.
 * @property {string[]} statuses  None stands for all.
 * @property {string[] | null} jobNames
 * @property {[string, string][]} labels
 * @property {string | null} schedule
 * @property {string | null} after  The id of the last run of the page before.
 * @property {number | null} limit
 * @property {number} offset
 */

/** @typedef {{id: string, row: WireValue[]} | {id: string, asked: Asked}} Found  A run that is stored, or asked for. */

const STATUSES = ["pending", "leased", "waiting", "completed", "failed", "cancelled"];
const TERMINAL = ["completed", "failed", "cancelled"];
// Beyond it a float of seconds, which Python makes instants of, is not exact to the millisecond.
const LAST_EXACT_MS = 2 ** 33 * 1000;

const SELECT_RUNS = `
SELECT r.id, r.job_name, r.status, r.input, r.output, r.error, r.labels, r.progress, r.created_at, r.started_at, r.completed_at,
       r.run_at, r.wake_at, r.priority, r.concurrency_key, r.paused, r.parent_run_id, r.forked_from,
       r.undoing, r.schedule, r.scheduled_at,
       (SELECT count(DISTINCT step_name) FROM durably_journal WHERE run_id = r.id AND type = 'step:complete')
FROM durably_runs r
`;

/** Only the engine can answer that. */
export class NeedsEngine extends Error {}

/**
 * What the query of `GET /runs` asks for.
 *
 * @param {Record<string, unknown>} query
 * @returns {Filter}
 */
export function filterOf(query) {
  /** @type {Filter} */
  const filter = { statuses: [], jobNames: null, labels: [], schedule: null, after: null, limit: null, offset: 0 };
  for (const [name, value] of Object.entries(query)) {
    if (name === "jobName") {
      filter.jobNames = Array.isArray(value) ? value.map(text) : [text(value)];
      if (filter.jobNames.length === 0) throw new NeedsEngine();
    } else if (name === "status") {
      filter.statuses = text(value).split(",");
      if (!filter.statuses.every((status) => STATUSES.includes(status))) throw new NeedsEngine();
    } else if (name.startsWith("label.")) {
      filter.labels.push([text(name.slice("label.".length)), text(value)]);
    } else if (name === "after" || name === "schedule") {
      filter[name] = text(value);
    } else if (name === "limit" || name === "offset") {
      if (!/^[0-9]{1,15}$/.test(text(value))) throw new NeedsEngine();
      filter[name] = Number(value);
    } else {
      throw new NeedsEngine();
    }
  }
  return filter;
}

/**
 * The run of this id.
 *
 * @param {Connection} connection
 * @param {string} id
 * @returns {Found | undefined}
 */
export function findRun(connection, id) {
  const [row] = connection.query(`${SELECT_RUNS} WHERE r.id = ?`, [id]);
  return row && { id, row };
}

/**
 * The runs that a filter means, of those that are stored and those that are asked for, in the engine's order: newest first.
 *
 * @param {Connection} connection
 * @param {boolean} stored  whether there are runs in the database
 * @param {Asked[]} asked
 * @param {Filter} filter
 * @returns {Found[]}
 */
export function findRuns(connection, stored, asked, filter) {
  const { limit, offset } = filter;
  /** @type {Found[]} */
  const found = asked.filter((run) => isMeant(run, filter)).map((run) => ({ id: run.id, asked: run }));
  // So many stored runs may be missing from their places before the page, or be too many in it.
  const most = found.length;
  const skipped = Math.max(0, offset - most);
  if (stored) {
    const [where, params] = condition(filter);
    const page = [limit === null ? -1 : limit + most, skipped];
    const rows = connection.query(`${SELECT_RUNS} ${where} ORDER BY r.id DESC LIMIT ? OFFSET ?`, [...params, ...page]);
    for (const row of rows) found.push({ id: /** @type {string} */ (row[0]), row });
  }
  found.sort((one, other) => (one.id < other.id ? 1 : -1));
  // What is asked for and stands before the skipped ones is then too far in front by as many; it is not in the page in any case.
  const start = stored ? offset - skipped : offset;
  return found.slice(start, limit === null ? undefined : start + limit);
}

/**
 * @param {Asked} run
 * @param {Filter} filter
 */
function isMeant({ id, jobName, labels: own }, { statuses, jobNames, labels, schedule, after }) {
  return (
    // What a page asks for is of no schedule.
    schedule === null &&
    (statuses.length === 0 || statuses.includes("pending")) &&
    (jobNames === null || jobNames.includes(jobName)) &&
    labels.every(([key, value]) => own[key] === value) &&
    (after === null || id < after)
  );
}

/**
 * @param {Filter} filter
 * @returns {[string, unknown[]]}
 */
function condition({ statuses, jobNames, labels, schedule, after }) {
  const conditions = [];
  const params = [];
  if (statuses.length > 0) {
    conditions.push("r.status IN (SELECT value FROM json_each(?))");
    params.push(JSON.stringify(statuses));
  }
  if (jobNames !== null) {
    conditions.push(`r.job_name IN (${jobNames.map(() => "?").join(", ")})`);
    params.push(...jobNames);
  }
  for (const [key, value] of labels) {
    conditions.push("r.id IN (SELECT run_id FROM durably_labels WHERE key = ? AND value = ?)");
    params.push(key, value);
  }
  if (schedule !== null) {
    conditions.push("r.schedule = ?");
    params.push(schedule);
  }
  if (after !== null) {
    conditions.push("r.id < ?");
    params.push(after);
  }
  return [conditions.length > 0 ? `WHERE ${conditions.join(" AND ")}` : "", params];
}

// -- the wire -------------------------------------------------------------------------------------------------------------------

/**
 * A client run, as JSON text.
 *
 * @param {Found} found
 * @param {Sealer} sealer
 * @returns {Promise<string>}
 */
export async function clientRun(found, sealer) {
  return "asked" in found ? pendingRun(found.asked) : storedRun(await Promise.all(found.row.map((value) => opened(value, sealer))));
}

/** @param {WireValue[]} row */
function storedRun(row) {
  const [id, jobName, status, input, output, error, labels, progress, createdAt, startedAt, completedAt, ...more] = row;
  const [runAt, wakeAt, priority, concurrencyKey, paused, parentRunId, forkedFrom, undoing, schedule, scheduledAt, stepCount] = more;
  const isTerminal = TERMINAL.includes(/** @type {string} */ (status));
  return object({
    id: scalar(id),
    jobName: scalar(jobName),
    status: scalar(status),
    input: plain(input),
    output: plain(output),
    error: scalar(error),
    labels: plain(labels),
    progress: progressText(progress),
    createdAt: instant(createdAt),
    startedAt: instant(startedAt),
    completedAt: instant(completedAt),
    // 0 stands for at once.
    runAt: instant(runAt === 0 ? null : runAt),
    wakeAt: instant(wakeAt),
    priority: scalar(priority),
    concurrencyKey: scalar(concurrencyKey),
    paused: String(paused !== 0),
    parentRunId: scalar(parentRunId),
    forkedFrom: scalar(forkedFrom),
    undoing: scalar(undoing),
    schedule: scalar(schedule),
    scheduledAt: instant(scheduledAt),
    stepCount: scalar(stepCount),
    isTerminal: String(isTerminal),
    isActive: String(!isTerminal),
  });
}

/** @param {Asked} asked */
function pendingRun({ id, jobName, input, labels, createdAt, runAt, priority, concurrencyKey }) {
  return object({
    id: scalar(id),
    jobName: scalar(jobName),
    status: '"pending"',
    input: JSON.stringify(input),
    output: "null",
    error: "null",
    labels: JSON.stringify(labels),
    progress: "null",
    createdAt: instant(createdAt),
    startedAt: "null",
    completedAt: "null",
    runAt: instant(runAt),
    wakeAt: instant(runAt !== null && runAt > createdAt ? runAt : null),
    priority: scalar(priority),
    concurrencyKey: scalar(concurrencyKey),
    paused: "false",
    parentRunId: "null",
    forkedFrom: "null",
    undoing: "null",
    schedule: "null",
    scheduledAt: "null",
    stepCount: "0",
    isTerminal: "false",
    isActive: "true",
  });
}

/** @param {Record<string, string>} members  JSON texts */
function object(members) {
  return `{${Object.entries(members).map(([name, value]) => `"${name}":${value}`).join(",")}}`;
}

/**
 * @param {WireValue} value
 * @param {Sealer} sealer
 * @returns {WireValue | Promise<WireValue>}
 */
function opened(value, sealer) {
  return typeof value === "string" ? sealer.open(value) : value;
}

/** @param {WireValue | undefined} value */
function scalar(value) {
  if (value === undefined || (typeof value === "object" && value !== null)) throw new NeedsEngine();
  return JSON.stringify(value);
}

/**
 * A stored value. What JSON does not have has a tag in it, which only Python resolves.
 *
 * @param {WireValue | undefined} value
 */
function plain(value) {
  if (value === null) return "null";
  if (typeof value !== "string" || value.includes('"$type"')) throw new NeedsEngine();
  // Throws for what is no JSON, which would spoil all that is around it.
  JSON.parse(value);
  return value;
}

/** @param {WireValue | undefined} value */
function progressText(value) {
  const content = plain(value);
  const members = JSON.parse(content);
  // Written with what there is, and with nothing else.
  if (members !== null && Object.values(members).includes(null)) throw new NeedsEngine();
  return content;
}

/** @param {WireValue | undefined} value */
function instant(value) {
  if (value === null) return "null";
  if (typeof value !== "number" || value < 0 || value > LAST_EXACT_MS) throw new NeedsEngine();
  return JSON.stringify(new Date(value).toISOString());
}

/** @param {unknown} value */
function text(value) {
  if (!isText(value)) throw new NeedsEngine();
  return value;
}
