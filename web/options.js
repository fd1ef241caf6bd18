/**
 * The options of `createDurably`, checked and completed. One that there is not is refused: it would be a silent mistake.
 *
 * @module
 */

import { invalid } from "./failures.js";
/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").PageOptions} PageOptions */
/** @typedef {import("./types.js").ServerOptions} ServerOptions */

/**
 * What to connect to: a server, or a worker that is started with `boot`.
 *
 * @typedef {{server: {url: string, credentials: RequestCredentials}, requestTimeout: number}
 *   | {boot: import("./protocol.js").BootOptions, offline: boolean, hangTimeout: number, requestTimeout: number}} Plan
 */

// By this name, because a bundler would take `new URL(".", import.meta.url)` for a file that it has to move.
const HERE = import.meta.url;

const SHARED = ["requestTimeout", "onStatus"];
const SERVER = ["url", "credentials"];
const PAGE = [
  "jobs",
  "database",
  "requirements",
  "durability",
  "encryptionKey",
  "base",
  "runtime",
  "pyodide",
  "snapshot",
  "role",
  "offline",
  "hangTimeout",
];

const REQUEST_TIMEOUT_MS = 60_000;
const HANG_TIMEOUT_MS = 120_000;

/**
 * @param {Options} options
 * @returns {Plan}  with no keys yet: to make bytes of those takes a while
 */
export function planOf(options) {
  if (typeof options !== "object" || options === null) throw invalid(`createDurably takes an object with options, not ${options}`);
  const given = Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  const unknown = given.filter((name) => ![...SHARED, ...SERVER, ...PAGE].includes(name));
  if (unknown.length > 0) {
    throw invalid(`createDurably has no option ${unknown.join(", ")}; it has ${[...PAGE, ...SERVER, ...SHARED].join(", ")}`);
  }
  const requestTimeout = milliseconds(options.requestTimeout ?? REQUEST_TIMEOUT_MS, "requestTimeout");
  if (options.onStatus !== undefined && typeof options.onStatus !== "function") throw invalid("onStatus is a function");
  if (options.url !== undefined) {
    const page = given.filter((name) => PAGE.includes(name));
    if (page.length > 0) {
      throw invalid(`with url the jobs run on a server, so ${page.join(", ")} would have no effect: give url, or jobs, not both`);
    }
    return { server: serverOf(/** @type {ServerOptions} */ (options)), requestTimeout };
  }
  const server = given.filter((name) => SERVER.includes(name));
  if (server.length > 0) throw invalid(`${server.join(", ")} would have no effect without url`);
  const { hangTimeout = HANG_TIMEOUT_MS, offline = true, ...page } = /** @type {PageOptions} */ (options);
  if (typeof offline !== "boolean") throw invalid(`offline is true or false, not ${offline}`);
  const patience = hangTimeout === 0 ? 0 : milliseconds(hangTimeout, "hangTimeout");
  return { boot: bootOf(page), offline, hangTimeout: patience, requestTimeout };
}

/** @param {ServerOptions} options */
function serverOf({ url, credentials = "same-origin" }) {
  oneOf(credentials, ["same-origin", "include", "omit"], "credentials");
  const address = absolute(url, "url");
  if (!/^https?:/.test(address)) throw invalid(`url is the http or https address of a server, not ${address}`);
  return { url: address.replace(/\/+$/, ""), credentials };
}

/**
 * @param {PageOptions} options
 * @returns {import("./protocol.js").BootOptions}
 */
function bootOf({
  jobs,
  database = "default",
  requirements = [],
  durability = "full",
  base = new URL("..", HERE),
  runtime = new URL(".", HERE),
  pyodide,
  snapshot = true,
  role = "auto",
}) {
  oneOf(role, ["auto", "follower"], "role");
  oneOf(durability, ["full", "relaxed"], "durability");
  if (typeof snapshot !== "boolean") throw invalid(`snapshot is true or false, not ${snapshot}`);
  if (typeof database !== "string") throw invalid(`database is a name, not ${database}`);
  if (database.includes("://")) {
    throw invalid(
      "database is the name of one in this browser; for one on a server, give url, the address of a durably_web server that has it",
    );
  }
  const files = [jobs ?? []].flat();
  if (files.length === 0 && role !== "follower") {
    throw invalid(
      'createDurably needs jobs, the address of a file with Python jobs, such as "./jobs.py", or a list of them; ' +
        'or url, the address of a server that runs them, such as "/api/durably"',
    );
  }
  if (!Array.isArray(requirements)) throw invalid("requirements is a list of wheels or package names");
  const folder = folderOf(runtime, "runtime");
  return {
    jobs: files.map((file) => absolute(file, "jobs")),
    database,
    base: new URL(absolute(base, "base")).pathname,
    runtime: folder,
    pyodide: pyodide === undefined ? null : folderOf(pyodide, "pyodide"),
    snapshot,
    requirements: requirements.map((wheel) => (/[/]|\.whl$/.test(wheel) ? absolute(wheel, "requirements") : wheel)),
    durability,
    encryptionKeys: [],
    role,
  };
}

/**
 * @param {string | URL} url
 * @param {string} what
 */
function folderOf(url, what) {
  return absolute(url, what).replace(/\/?$/, "/");
}

/**
 * @param {unknown} url
 * @param {string} what
 * @returns {string}
 */
function absolute(url, what) {
  if (typeof url !== "string" && !(url instanceof URL)) throw invalid(`${what} is an address, not ${url}`);
  try {
    return new URL(url, globalThis.document?.baseURI).href;
  } catch (error) {
    throw invalid(`${what} is no address: ${JSON.stringify(String(url))}`, { cause: error });
  }
}

/**
 * @param {unknown} value
 * @param {string[]} choices
 * @param {string} what
 */
function oneOf(value, choices, what) {
  if (!choices.includes(/** @type {string} */ (value))) {
    throw invalid(`${what} is ${choices.map((choice) => JSON.stringify(choice)).join(" or ")}, not ${JSON.stringify(value)}`);
  }
}

/**
 * @param {unknown} value
 * @param {string} what
 * @returns {number}
 */
function milliseconds(value, what) {
  if (typeof value === "number" && value > 0) return value;
  throw invalid(`${what} is a number of milliseconds above 0, not ${value}`);
}
