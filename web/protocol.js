/**
 * What the page, its worker, and the workers of other tabs say to each other, and the version of it. `docs/protocol.md` tells it as a
 * story.
 *
 * A request is HTTP in miniature, because the same routes answer over HTTP elsewhere. Bodies are JSON text made by whoever
 * writes it and read by whoever wants it: what passes through is not parsed. A request is `{id, method, path, query, body}`, a
 * response `{status, body}`.
 *
 * @module
 */

/** Raised when a message changes its meaning: two deployments that meet must notice. */
export const PROTOCOL_VERSION = 4;

/** @typedef {"full" | "relaxed"} Durability */

/**
 * @typedef {object} BootOptions
 * @property {string[]} jobs  Absolute URLs of the job files.
 * @property {string} database
 * @property {string} base  The path that this site owns on its origin; part of every name it uses there.
 * @property {string} runtime  Absolute URL of the folder with Pyodide, SQLite and the wheels.
 * @property {string | null} pyodide  Absolute URL of the folder with Pyodide; `null` for that of the runtime's manifest.
 * @property {boolean} snapshot  Whether Python may go on from the memory that comes with the runtime.
 * @property {string[]} requirements  Absolute wheel URLs or package names.
 * @property {Durability} durability
 * @property {Uint8Array[]} encryptionKeys  Each of 32 bytes; of several the first seals and all open.
 * @property {"auto" | "follower"} role  A follower never runs the jobs itself.
 */

/**
 * Where the leader's start has got to. `running`: the jobs can run.
 *
 * @typedef {"locking" | "opening" | "python" | "requirements" | "jobs" | "running"} Phase
 */

/**
 * What a page knows of the worker that it had before this one. `blamed` is the run whose code ran last, when it stopped answering
 * or died.
 *
 * @typedef {{orphaned: boolean, blamed: string | null}} Aftermath
 */

/** @typedef {"close" | "pagehide"} ShutdownReason */

/**
 * Both a page and a follower's worker are clients of the leader's worker. Only the events of the last `listen` are told; the
 * type `journal` stands for `{type, runId, seq}` of each event that is stored, without what it is about.
 *
 * `storage` is a request for the worker itself, about the files of the database, and may bring another one.
 *
 * @typedef {{type: "listen", events: string[]}
 *   | {type: "request", text: string, id: string}
 *   | {type: "storage", text: string, id: string, blob?: Blob}} FromClient
 */

/**
 * `connected` comes first: this client's requests are answered now, and those that it still waits for have to be sent again. `seq`
 * is that of the last stored event. `phase` comes again with each change, and while more of what it downloads comes in: `loaded` of `total` bytes.
 *
 * @typedef {{type: "connected", seq: number}
 *   | {type: "phase", phase: Phase, at: number, loaded?: number, total?: number, readOnly?: string}
 *   | {type: "response", id: string, text: string, blob?: Blob}
 *   | {type: "event", text: string}} ToClient
 */

/**
 * @typedef {FromClient
 *   | {type: "boot", protocol: number, options: BootOptions, aftermath: Aftermath}
 *   | {type: "network", online: boolean}
 *   | {type: "ping"}
 *   | {type: "shutdown", reason: ShutdownReason}} ToWorker
 */

/**
 * `role` comes before `connected`. `running` names the run whose code runs from now on, if any. `asleep`: the leader does not answer, and
 * this browser does not let another tab take the database over from it. `deposed`: another tab took it over, because this one seemed to be
 * asleep. `restart`: the files are others now, and a new worker is to open them; `error` says what happened to those before.
 *
 * @typedef {ToClient
 *   | {type: "hello", lifeline: string}
 *   | {type: "role", role: "leader" | "follower", channel: string}
 *   | {type: "followers", count: number}
 *   | {type: "running", runId: string | null}
 *   | {type: "pong"}
 *   | {type: "asleep"}
 *   | {type: "deposed"}
 *   | {type: "restart", error: import("./failures.js").Failure | null}
 *   | {type: "failed", error: import("./failures.js").Failure}
 *   | {type: "closed"}} FromWorker
 */

/**
 * On the channel that all tabs of a database share. A follower attaches, again whenever a leader says that it is there. A page whose
 * worker led and is gone says under which run, for whoever leads next. Ping and pong have no version: they must be understood
 * by whatever is running in another tab.
 *
 * @typedef {{type: "attach", protocol: number, client: string, lifeline: string, events: string[]}
 *   | {type: "leader"}
 *   | {type: "blame", runId: string | null}
 *   | {type: "cleared"}
 *   | {type: "ping"}
 *   | {type: "pong"}} OnChannel
 */

/**
 * On the channel of one follower, from the leader.
 *
 * @typedef {ToClient | {type: "refused", error: import("./failures.js").Failure}} ToFollower
 */
