/**
 * What a page gives to the client and gets from it. Durations are milliseconds; instants come as ISO 8601 texts in UTC.
 *
 * @module
 */

/** @typedef {import("./link.js").Status} Status */
/** @typedef {import("./link.js").StatusDetail} StatusDetail */

/** @typedef {"pending" | "leased" | "waiting" | "completed" | "failed" | "cancelled"} RunStatus */
/** @typedef {Date | string} Instant  A text is ISO 8601 with a zone. */
/** @typedef {Uint8Array | CryptoKey} EncryptionKey  32 random bytes, or an AES-GCM key of 256 bits that may be exported. */

/**
 * @typedef {object} Options
 * @property {string | URL | (string | URL)[]} jobs  Job files (`.py`), relative to the page.
 * @property {string} [database]  Each name is a database of its own.
 * @property {string[]} [requirements]  Wheels (relative to the page) or package names that the job files import, in this order:
 *   what a wheel needs comes before it.
 * @property {"full" | "relaxed"} [durability]  `full`: what was acknowledged survives a power cut; `relaxed`: any crash of the tab.
 * @property {EncryptionKey | EncryptionKey[]} [encryptionKey]  Seals what the database keeps of inputs, outputs, results, errors, logs,
 *   progress and signals. Of several keys the first seals and all open. Without the key the values are lost.
 * @property {string | URL} [base]  The path that this site owns on its origin, relative to the page; by default the folder above
 *   this file's. What is stored belongs to it.
 * @property {string | URL} [runtime]  The folder with Pyodide, SQLite and the wheels; by default this file's.
 * @property {string | URL} [pyodide]  The folder with Pyodide; by default `pyodide/` in the runtime.
 * @property {"auto" | "follower"} [role]  `follower`: this tab never runs the jobs itself; another one has to.
 * @property {number} [hangTimeout]  Milliseconds without a sign of life after which the worker that runs the jobs is ended and
 *   started again; two minutes by default, 0 for never. Long computations belong into steps with `offload=True`.
 * @property {number} [requestTimeout]  Milliseconds until an unanswered request rejects with `TimeoutError`.
 * @property {(status: Status, detail: StatusDetail) => void} [onStatus]
 */

/**
 * @typedef {object} ItemOptions
 * @property {string} [idempotencyKey]  The same key gives the run that it gave first.
 * @property {string} [concurrencyKey]  Runs of one key never overlap, unless a job allows more.
 * @property {"skip" | "replace" | "queue"} [coalesce]  What if a run of this job and key is pending already: give that one; give it the
 *   new input; let both wait. Without it that rejects with `Conflict`.
 * @property {Record<string, string>} [labels]
 * @property {number} [priority]  Higher first; 0 by default.
 * @property {number} [delay]  Milliseconds until the run is due.
 * @property {Instant} [runAt]  When the run is due.
 */

/**
 * @typedef {ItemOptions & {debounce?: number | {delay: number, maxDelay?: number}}} TriggerOptions
 *   `debounce` makes one run of all triggers of a `concurrencyKey` in a burst: the last input, `delay` ms after the last
 *   trigger, and at most `maxDelay` after the first.
 */

/** @typedef {ItemOptions & {input?: unknown}} Item */
/** @typedef {{id: string, disposition: "created" | "idempotent" | "coalesced"}} Triggered */

/**
 * @typedef {object} Selection  Runs that meet all conditions; at least one of them is given.
 * @property {string} [jobName]
 * @property {RunStatus | RunStatus[]} [status]
 * @property {Record<string, string>} [labels]
 * @property {Instant} [createdBefore]
 */

/**
 * @typedef {object} RunFilter
 * @property {string} [jobName]
 * @property {RunStatus | RunStatus[]} [status]
 * @property {Record<string, string>} [labels]
 * @property {number} [limit]
 * @property {number} [offset]
 * @property {string} [after]  The id of the last run of the page before; unlike `offset`, it does not shift when new runs come in.
 */

/** @typedef {{current: number, total?: number, message?: string}} Progress */

/**
 * @typedef {object} Run
 * @property {string} id
 * @property {string} jobName
 * @property {RunStatus} status
 * @property {any} input
 * @property {any} output
 * @property {string | null} error
 * @property {Record<string, string>} labels
 * @property {Progress | null} progress
 * @property {string} createdAt
 * @property {string | null} startedAt
 * @property {string | null} completedAt
 * @property {string | null} runAt  When a delayed run is due.
 * @property {string | null} wakeAt  When a run that waits becomes due by time; `null` when time alone does not wake it.
 * @property {number} priority
 * @property {string | null} concurrencyKey
 * @property {boolean} paused
 * @property {string | null} parentRunId
 * @property {string | null} forkedFrom
 * @property {number} stepCount
 * @property {boolean} isTerminal
 * @property {boolean} isActive
 */

/**
 * @typedef {object} Step
 * @property {string} name
 * @property {"completed" | "failed" | "retrying" | "waiting"} status
 * @property {any} output
 * @property {string | null} error
 * @property {number} attempt  The try that gave the outcome, or that comes next.
 * @property {{attempt: number, error: string, startedAt: string, failedAt: string}[]} attempts  Those that failed.
 * @property {string | null} until  When a step that waits goes on by time.
 * @property {string} startedAt
 * @property {string | null} completedAt
 */

/**
 * @typedef {object} LogLine
 * @property {"debug" | "info" | "warning" | "error"} level
 * @property {string} message
 * @property {Record<string, any>} data
 * @property {string | null} stepName
 * @property {string} createdAt
 */

/**
 * @typedef {object} Stats
 * @property {number} total
 * @property {Partial<Record<RunStatus, number>>} byStatus
 * @property {Record<string, Partial<Record<RunStatus, number>>>} byJob
 * @property {string[]} pausedJobs
 */

/**
 * @typedef {object} JobHandle
 * @property {(input?: unknown, options?: TriggerOptions) => Promise<Triggered>} trigger
 * @property {(input?: unknown, options?: TriggerOptions & {timeout?: number}) => Promise<any>} triggerAndWait
 * @property {(items: Item[]) => Promise<Triggered[]>} triggerMany
 */

/**
 * What each type of event is about.
 *
 * @typedef {{
 *   "run:trigger": {input: any},
 *   "run:coalesced": {input: any},
 *   "run:leased": {leaseOwner: string, attempt: number},
 *   "run:lease-renewed": {leaseOwner: string},
 *   "run:waiting": {until?: string},
 *   "run:pause": {},
 *   "run:resume": {},
 *   "run:progress": {progress: Progress},
 *   "run:retry": {error: string | null, attempt: number | null, until?: string},
 *   "run:complete": {output: any, duration?: number},
 *   "run:fail": {error: string, failedStepName: string | null, duration?: number},
 *   "run:cancel": {},
 *   "run:delete": {},
 *   "step:start": {stepName: string},
 *   "step:wait": {stepName: string, until?: string},
 *   "step:retry": {stepName: string, error: string, attempt: number, until?: string},
 *   "step:complete": {stepName: string, output: any, duration?: number},
 *   "step:fail": {stepName: string, error: string, attempt: number, duration?: number},
 *   "step:cancel": {stepName: string},
 *   "log:write": {stepName: string | null, level: LogLine["level"], message: string, data: Record<string, any>},
 *   "worker:error": {error: string, context: string},
 * }} EventDetails
 */

/** @typedef {keyof EventDetails} EventType */

/**
 * `seq` grows with every stored event; it is `null` for what is told but not stored.
 *
 * @typedef {{seq: number | null, timestamp: string, runId: string | null, jobName: string | null, labels: Record<string, string>}} EventHead
 */

/**
 * @template {EventType} T
 * @typedef {EventHead & {type: T} & EventDetails[T]} EventOf
 */

/** @typedef {{[T in EventType]: EventOf<T>}[EventType]} DurablyEvent */

/**
 * @template {EventType | "*"} T
 * @typedef {T extends EventType ? EventOf<T> : DurablyEvent} EventFor  What a listener for `T` is called with.
 */

export {};
