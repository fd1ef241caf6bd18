/**
 * What the page and the worker say to each other: one union of messages each way, and its version.
 *
 * A request is HTTP in miniature (method, path, query, body), because the same routes answer over HTTP elsewhere.
 *
 * @module
 */

/** Raised when a message changes its meaning: a page and a worker from two deployments must notice. */
export const PROTOCOL_VERSION = 2;

/** @typedef {"full" | "relaxed"} Durability */

/**
 * @typedef {object} BootOptions
 * @property {string[]} jobs  Absolute URLs of the job files.
 * @property {string} database
 * @property {string} base  The path that this site owns on its origin; part of every name it uses there.
 * @property {string} runtime  Absolute URL of the folder with Pyodide, SQLite and the wheels.
 * @property {string[]} requirements  Absolute wheel URLs or package names.
 * @property {Durability} durability
 * @property {Uint8Array[]} encryptionKeys  Each of 32 bytes; of several the first seals and all open.
 */

/**
 * Where the boot has got to. `follower` lasts until the tab that owns the database goes.
 *
 * @typedef {"locking" | "follower" | "opening" | "python" | "requirements" | "jobs" | "running"} Phase
 */

/**
 * Bodies are JSON text made by whoever writes it and read by whoever wants it: what passes through is not parsed.
 * A request is `{method, path, query, body}`, a response `{status, body}`. Only the events of the last `listen` are told; the type
 * `journal` stands for `{type, runId, seq}` of each that is stored, without what it is about.
 *
 * @typedef {{type: "boot", protocol: number, options: BootOptions}
 *   | {type: "listen", events: string[]}
 *   | {type: "request", id: number, text: string}
 *   | {type: "close"}} ToWorker
 */

/**
 * @typedef {{type: "hello", lifeline: string}
 *   | {type: "status", phase: Phase, at: number}
 *   | {type: "response", id: number, text: string}
 *   | {type: "event", text: string}
 *   | {type: "failed", error: import("./failures.js").Failure}
 *   | {type: "closed"}} FromWorker
 */
