/**
 * What a page gives to the client and gets from it. Durations are milliseconds; instants come as ISO 8601 texts in UTC.
 *
 * @module
 */

/**
 * `starting` until requests are accepted; then `leader` (the jobs run in this tab) or `follower` (they run in another tab or on a
 * server); `starting` again while there is no connection; `closed` by `close()`; `failed` with an error that every request repeats.
 *
 * @typedef {"starting" | "leader" | "follower" | "closed" | "failed"} Status
 */

/** @typedef {import("./link.js").StatusDetail} StatusDetail */

/** @typedef {"pending" | "leased" | "waiting" | "completed" | "failed" | "cancelled"} RunStatus */
/** @typedef {Date | string} Instant  A text is ISO 8601 with a zone. */
/** @typedef {Uint8Array | CryptoKey} EncryptionKey  32 random bytes, or an AES-GCM key of 256 bits that may be exported. */

/**
 * @typedef {object} SharedOptions
 * @property {number} [requestTimeout]  Milliseconds until an unanswered request rejects with `TimeoutError`; 60,000 by default.
 * @property {(status: Status, detail: StatusDetail) => void} [onStatus]  Called with each change of `status`, and with each phase of
 *   the start: `locking`, `opening`, `python`, `requirements`, `jobs`, `running`. In a phase that downloads, it is called again
 *   while the bytes come in, with `loaded` and `total`.
 */

/**
 * For jobs that run in this page's worker, or in that of another tab of the site.
 *
 * @typedef {object} PageOnlyOptions
 * @property {string | URL | (string | URL)[]} [jobs]  Job files (`.py`), relative to the page. Only a page whose `role` is
 *   `follower` can do without.
 * @property {string} [database]  Each name is a database of its own; `default` by default.
 * @property {string[]} [requirements]  Wheels (relative to the page) or package names that the job files import, in this order:
 *   what a wheel needs comes before it.
 * @property {"full" | "relaxed"} [durability]  `full`: what was acknowledged survives a power cut; `relaxed`: any crash of the tab.
 * @property {EncryptionKey | EncryptionKey[]} [encryptionKey]  Seals what the database keeps of inputs, outputs, results, errors, logs,
 *   progress and signals. Of several keys the first seals and all open. Without the key the values are lost.
 * @property {string | URL} [base]  The path that this site owns on its origin, relative to the page; by default the folder above
 *   this file's. What is stored belongs to it.
 * @property {string | URL} [runtime]  The folder with Pyodide, SQLite and the wheels; by default this file's.
 * @property {string | URL} [pyodide]  The folder with Pyodide; by default what the runtime was built with, `pyodide/` in it or a CDN.
 * @property {boolean} [snapshot]  Whether Python goes on from a memory that was made with the site, which is most of a fast start; `true` by
 *   default. Then the seed of string hashes is the same in every start of that site, and known: with `false` it is a new one each time.
 * @property {"auto" | "follower"} [role]  With `auto` this tab runs the jobs when no other one does; a `follower` never does, and
 *   its requests wait while there is no tab that does.
 * @property {boolean} [offline]  `false` does not have the site kept for offline use, where it is made for that. What another page had kept
 *   stays.
 * @property {number} [hangTimeout]  Milliseconds without a sign of life after which the worker that runs the jobs is ended and
 *   started again; two minutes by default, 0 for never. Long computations belong into steps with `offload=True`.
 */

/**
 * For jobs that run on a server.
 *
 * @typedef {object} ServerOnlyOptions
 * @property {string | URL} url  Where the server answers, relative to the page, such as `/api/durably`.
 * @property {RequestCredentials} [credentials]  Whether cookies go along: `same-origin` by default, `include` to other origins too.
 */

/** @typedef {SharedOptions & PageOnlyOptions & {[name in keyof ServerOnlyOptions]?: undefined}} PageOptions */
/** @typedef {SharedOptions & ServerOnlyOptions & {[name in keyof PageOnlyOptions]?: undefined}} ServerOptions */
/** @typedef {PageOptions | ServerOptions} Options */

/**
 * What every request takes.
 *
 * @typedef {object} RequestOptions
 * @property {AbortSignal} [signal]  When it aborts, the promise rejects with the signal's reason, at once. What was asked for may still
 *   happen.
 * @property {number} [timeout]  Milliseconds until the promise rejects with `TimeoutError`, instead of `requestTimeout`. What was asked
 *   for may still happen.
 */

/**
 * What every wait takes.
 *
 * @typedef {object} WaitOptions
 * @property {AbortSignal} [signal]  When it aborts, the promise rejects with the signal's reason, at once. The run goes on.
 * @property {number} [timeout]  Milliseconds, for all of it, until the promise rejects with `TimeoutError`. The run goes on. Without it,
 *   as long as it takes.
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
 * @property {string | string[]} [jobName]  One of these.
 * @property {RunStatus | RunStatus[]} [status]  One of these.
 * @property {Record<string, string>} [labels]
 * @property {Instant} [createdBefore]
 */

/**
 * @typedef {object} RunFilter
 * @property {string | string[]} [jobName]  One of these.
 * @property {RunStatus | RunStatus[]} [status]  One of these.
 * @property {Record<string, string>} [labels]
 * @property {string} [schedule]  Those that this schedule has asked for.
 * @property {number} [limit]
 * @property {number} [offset]
 * @property {string} [after]  The id of the last run of the page before; unlike `offset`, it does not shift when new runs come in.
 */

/**
 * When a schedule asks for runs, and for which.
 *
 * @typedef {object} ScheduleOptions
 * @property {string} [name]  What the schedule is told apart by; the job's name by default.
 * @property {string} [cron]  Minute, hour, day of month, month, day of week: `"0 7 * * mon-fri"`. Either this or `every`.
 * @property {number} [every]  Milliseconds from one tick to the next.
 * @property {string} [timezone]  Of `cron`, such as `"Europe/Zurich"`; `"UTC"` by default.
 * @property {unknown} [input]  JSON; `{}` by default.
 * @property {Record<string, string>} [labels]
 * @property {number} [priority]  Higher first; 0 by default.
 * @property {"skip" | "one" | "all"} [missed]  What becomes of ticks at which nobody was there. `"skip"`, the default, drops those that are
 *   late by more than `catchUpWindow`; `"one"` makes one run for all of them, `"all"` one for each.
 * @property {"skip" | "queue" | "allow"} [overlap]  What becomes of a tick while a run of the schedule has not ended: no run (the default), one
 *   that waits for it, or one beside it.
 * @property {number} [catchUpWindow]  Milliseconds: ticks that were missed longer ago get no run. With `"skip"` a minute by default, otherwise
 *   there is no such limit.
 */

/**
 * @typedef {object} Schedule
 * @property {string} name
 * @property {string} jobName
 * @property {string | null} cron
 * @property {number | null} every  Milliseconds.
 * @property {string | null} timezone  Of `cron`.
 * @property {any} input
 * @property {Record<string, string>} labels
 * @property {number} priority
 * @property {"skip" | "one" | "all"} missed
 * @property {"skip" | "queue" | "allow"} overlap
 * @property {number | null} catchUpWindow  Milliseconds.
 * @property {boolean} paused
 * @property {string | null} nextAt  The next tick; `null` while it is paused, and where there is none any more.
 * @property {string | null} lastAt  The last tick that got a run.
 * @property {string} createdAt
 * @property {string} updatedAt
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
 * @property {"failed" | "cancelled" | null} undoing  How the run will end once its steps are undone.
 * @property {string | null} schedule  The schedule that asked for the run.
 * @property {string | null} scheduledAt  The tick of that schedule; `null` for a run that was asked for by hand.
 * @property {number} stepCount
 * @property {boolean} isTerminal
 * @property {boolean} isActive
 */

/**
 * @typedef {object} Step
 * @property {string} name
 * @property {"completed" | "failed" | "retrying" | "waiting" | "undone"} status
 * @property {any} output
 * @property {string | null} error
 * @property {number} attempt  The try that gave the outcome, or that comes next.
 * @property {{attempt: number, error: string, startedAt: string, failedAt: string}[]} attempts  Those that failed.
 * @property {string | null} until  When a step that waits goes on by time.
 * @property {string | null} waitsFor  `"signal approval"`, `"run 01…"` or `"network"`, for a step that waits for more than time.
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
 * @property {boolean} storageFull  Whether results of runs wait for room.
 */

/**
 * A job's share of the client, bound to its name.
 *
 * @typedef {object} JobHandle
 * @property {string} name
 * @property {(input?: unknown, options?: TriggerOptions & RequestOptions) => Promise<Triggered>} trigger
 * @property {(input?: unknown, options?: TriggerOptions & WaitOptions) => Promise<any>} triggerAndWait
 * @property {(items: Item[], options?: RequestOptions) => Promise<Triggered[]>} triggerMany
 * @property {(options: ScheduleOptions & RequestOptions) => Promise<Schedule>} schedule
 * @property {(runId: string, options?: RequestOptions) => Promise<Run | null>} getRun  `null` also for a run of another job.
 * @property {(filter?: Omit<RunFilter, "jobName">, options?: RequestOptions) => Promise<Run[]>} getRuns
 */

/**
 * A file that could not be used, or was found damaged; `bytes` is its size.
 *
 * @typedef {{name: string, bytes: number, reason: string, at: string}} SetAside
 */

/**
 * What this origin has stored in this browser, in bytes; of the database alone, `null` while there is none. `null` stands for what the
 * browser does not tell.
 *
 * @typedef {object} Storage
 * @property {number | null} usage  Of everything on this origin.
 * @property {number | null} quota  What the browser says that there might be. It may say more than there is.
 * @property {boolean} persisted  Whether the browser promised to keep it when space gets tight.
 * @property {number | null} bytes  Of the database.
 * @property {number | null} free  Of these, what is used again before it grows.
 * @property {boolean | null} full  Whether results of runs wait for room.
 * @property {SetAside[] | null} setAside  Files that were set aside, the oldest first.
 */

/**
 * This site in this browser: whether all of it is kept for use without a network, and which new version waits for the next start, if any.
 *
 * @typedef {{stored: boolean, update: string | null}} Site
 */

/**
 * What a run was executed with before, what it is executed with from now on, and what its job says of that.
 *
 * @typedef {{from: string, to: string, policy: "continue" | "fail" | "restart"}} CodeChange
 */

/**
 * Steps that were done before a run began anew, and that nobody undoes any more.
 *
 * @typedef {{notUndone: string[], undone?: Record<string, number>}} Restart
 */

/**
 * What `step.patched(name)` answered.
 *
 * @typedef {{name: string, patched: boolean}} Patch
 */

/**
 * The name of a patch that a run has not, and that its code does not ask for any more.
 *
 * @typedef {{patch: string}} UnaskedPatch
 */

/**
 * How far a handover is: the run is offered, goes on here after all, was given away, or was taken here. `target` is where it goes.
 *
 * @typedef {{state: "offered" | "withdrawn" | "given" | "taken", handover: string, target: string}} Handover
 */

/**
 * A run that is held back until it is known what became of it. `document` is what another engine takes it by, `null` where it was taken before.
 *
 * @typedef {{runId: string, handoverId: string, state: "offered" | "given", document: string | null}} Offer
 */

/**
 * What each type of event is about.
 *
 * @typedef {{
 *   ["run:trigger"]: {input: any},
 *   ["run:coalesced"]: {input: any},
 *   ["run:leased"]: {leaseOwner: string, attempt: number},
 *   ["run:lease-renewed"]: {leaseOwner: string},
 *   ["run:waiting"]: {until?: string, waitsFor: string | null},
 *   ["run:pause"]: {},
 *   ["run:resume"]: {},
 *   ["run:progress"]: {progress: Progress},
 *   ["run:retry"]: {error: string | null, attempt: number | null, until?: string},
 *   ["run:undo"]: {undoing: "failed" | "cancelled", error: string | null, failedStepName: string | null},
 *   ["run:code-changed"]: {data: CodeChange},
 *   ["run:restart"]: {data: Restart},
 *   ["run:patched"]: {data: Patch},
 *   ["run:handover"]: {data: Handover},
 *   ["run:complete"]: {output: any, duration?: number},
 *   ["run:fail"]: {error: string, failedStepName: string | null, duration?: number},
 *   ["run:cancel"]: {},
 *   ["run:delete"]: {},
 *   ["step:start"]: {stepName: string},
 *   ["step:wait"]: {stepName: string, until?: string, waitsFor: string | null, error: string | null},
 *   ["step:retry"]: {stepName: string, error: string, attempt: number, until?: string},
 *   ["step:complete"]: {stepName: string, output: any, duration?: number},
 *   ["step:fail"]: {stepName: string, error: string, attempt: number, duration?: number},
 *   ["step:cancel"]: {stepName: string},
 *   ["step:unasked"]: {stepName: string | null, data: UnaskedPatch | null},
 *   ["log:write"]: {stepName: string | null, level: LogLine["level"], message: string, data: Record<string, any>},
 *   ["schedule:skip"]: {schedule: string, reason: "missed" | "overlap", ticks: number, firstAt: string, lastAt: string},
 *   ["worker:error"]: {error: string, context: string},
 *   ["worker:shutdown"]: {reason: "stop" | "close" | "pagehide"},
 *   ["network:offline"]: {},
 *   ["network:online"]: {},
 *   ["storage:full"]: {error: string},
 *   ["storage:room"]: {},
 *   ["storage:set-aside"]: {reason: string},
 *   ["storage:cleared"]: {},
 * }} EventDetails
 */

/**
 * What the page itself tells; nobody stores it, and no other tab passes it on.
 *
 * - `site:stored`: all of the site is kept in this browser, and works without a network.
 * - `site:update`: a new version is there. It is taken at the next start.
 *
 * @typedef {{
 *   ["site:stored"]: {version: string},
 *   ["site:update"]: {version: string},
 * }} PageEventDetails
 */

/** @typedef {EventDetails & PageEventDetails} AllDetails */
/** @typedef {keyof AllDetails} EventType */

/**
 * `seq` grows with every stored event; it is `null` for what is told but not stored.
 *
 * @typedef {{seq: number | null, timestamp: string, runId: string | null, jobName: string | null, labels: Record<string, string>}} EventHead
 */

/**
 * @template {EventType} T
 * @typedef {EventHead & {type: T} & AllDetails[T]} EventOf
 */

/** @typedef {{[T in EventType]: EventOf<T>}[EventType]} DurablyEvent */

/**
 * @template {EventType | "*"} T
 * @typedef {T extends EventType ? EventOf<T> : DurablyEvent} EventFor  What a listener for `T` is called with.
 */

/**
 * What is pushed: an event, or that there is one (`journal`).
 *
 * @typedef {DurablyEvent | {type: "journal", runId: string | null, seq: number}} Pushed
 */

/**
 * What a way to whoever runs the jobs tells the client. Nothing of it may raise.
 *
 * @typedef {object} Told
 * @property {string[]} events  To listen to from the beginning.
 * @property {(status: Status, detail: StatusDetail) => void} onStatus
 * @property {(event: Pushed) => void} onEvent
 * @property {(connection: {seq: number, fresh?: boolean}) => void} onConnected  There is a connection that was not there before. `seq` is
 *   that of the last stored event; `fresh`: nobody listened since the connection before it was given up.
 */

/**
 * A way to whoever runs the jobs: `Link` (another worker) or `Http` (a server).
 *
 * @typedef {object} Transport
 * @property {Status} status
 * @property {string | null} [readOnly]  Why nothing can be written, if so.
 * @property {Promise<void>} started  Resolves when requests are accepted; rejects when the start failed before.
 * @property {Promise<void>} ready  Resolves when the jobs can run; rejects when the start failed.
 * @property {(method: string, path: string, query: Query, body?: unknown, options?: RequestOptions) => Promise<any>} request  The
 *   body of the answer.
 * @property {(method: string, path: string, query: Query, options?: RequestOptions, blob?: Blob) => Promise<any>} [storage]  Asks the worker
 *   that has the files of the database.
 * @property {(types: string[]) => void} listen  Hear of these types of events; `journal` is a hint for each that is stored.
 * @property {() => Promise<void>} close
 */

/** @typedef {Record<string, string | string[]>} Query  A list stands for a parameter that comes several times. */

export {};
