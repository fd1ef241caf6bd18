/**
 * Starting Python: Pyodide, our wheel, what the job files require, and the bridge that joins them to SQLite.
 *
 * @module
 */

import { DurablyError, errorOf, failureOf } from "./failures.js";
import { answering, settle, startInterpreter } from "./interpreter.js";
import { bridge as networkBridge, isOnline } from "./network.js";

/** @typedef {import("pyodide").PyodideInterface} Pyodide */
/** @typedef {import("./downloads.js").Downloads} Downloads */
/** @typedef {import("./protocol.js").BootOptions} BootOptions */
/** @typedef {import("./protocol.js").Phase} Phase */

/**
 * What Python calls, as the module `durably_bridge`.
 *
 * @typedef {object} Bridge
 * @property {(text: string) => string} run_batch
 * @property {(type: string, text: string) => void} post  hands an event, as JSON, to whoever listens to its type
 * @property {(runId: string | null | undefined) => void} running  names the run whose code runs from now on, if any
 * @property {() => void} broken  ends this worker: its interpreter has left
 * @property {number} offload_size  how many workers for offloaded functions there may be
 * @property {(id: number) => Promise<void>} offload_start
 * @property {(id: number, call: Uint8Array[]) => Promise<Uint8Array[]>} offload_run
 * @property {(id: number) => void} offload_end
 * @property {(name: "cronsim" | "tzdata") => Promise<string>} wheel  where that wheel of the runtime is, which is fetched first
 */

/**
 * The Python side of the bridge, `durably_web.browser`. It speaks JSON, so that no object of one language lives in the other.
 *
 * @typedef {object} Engine
 * @property {(events: string) => void} listen
 * @property {(request: string) => Promise<string>} handle
 * @property {(request: string, receivedAt: number) => Promise<string>} admit  takes a request over from the inbox
 * @property {() => Promise<string>} begin  executes runs from now on; `{}`, or `{"error": {"name", "message"}}`
 * @property {(online: boolean) => void} hear_of_network
 * @property {(reason: string) => Promise<void>} stop  finishes current steps; the jobs hear the reason
 */

// Both stay packed: Python imports from archives, and unpacking all of a wheel takes longer than reading what is needed of it.
const OWN_WHEEL = "/lib/durably_web.whl";
const HTTP_WHEEL = "/lib/pyodide_http.whl";

/**
 * Start Python, with our package and what the job files require in it.
 *
 * @param {BootOptions} options
 * @param {Downloads} downloads
 * @param {(phase: Phase) => void} onPhase
 * @param {() => void} onBroken  called when the interpreter is beyond repair: out of memory, or a bug in it
 * @returns {Promise<Pyodide>}
 */
export async function bootPython(options, downloads, onPhase, onBroken) {
  const [{ pyodide, restored }, { manifest, wheel, http }] = await Promise.all([startInterpreter(options, downloads), downloads.parts]);
  /** @type {{_api: {on_fatal?: () => void}}} */ (/** @type {unknown} */ (pyodide))._api.on_fatal = onBroken;
  // A memory has the modules that are in it, and no file.
  pyodide.FS.writeFile(OWN_WHEEL, wheel);
  pyodide.FS.writeFile(HTTP_WHEEL, http);
  pyodide.registerJsModule("durably_network", networkBridge);
  if (restored) settle(pyodide);
  else pyodide.runPython(`import sys; sys.path.append("${OWN_WHEEL}")`);
  downloads.progress.python?.complete();
  const packages = await downloads.packages;
  if (packages.size > 0 || options.requirements.length > 0) onPhase("requirements");
  if (packages.size > 0) await loadPackages(pyodide, packages);
  if (options.requirements.length > 0) {
    await install(pyodide, new URL(manifest.micropip, options.runtime).href, options.requirements);
  }
  return pyodide;
}

/**
 * @param {Pyodide} pyodide
 * @param {Bridge} bridge
 * @param {object} settings
 * @param {{name: string, source: string}[]} settings.sources  the job files
 * @param {Uint8Array[]} settings.encryptionKeys
 * @param {string[]} settings.events  that somebody wants to hear of from the beginning
 * @param {import("./protocol.js").Aftermath} settings.aftermath
 * @returns {Promise<Engine>}
 */
export async function startEngine(pyodide, bridge, { sources, encryptionKeys, events, aftermath }) {
  pyodide.registerJsModule("durably_bridge", bridge);
  const browser = pyodide.pyimport("durably_web.browser");
  const settings = JSON.stringify({
    jobs: sources,
    http_wheel: HTTP_WHEEL,
    keys: encryptionKeys.map((key) => [...key]),
    events,
    online: isOnline(),
    ...aftermath,
  });
  const outcome = JSON.parse(await browser.start(settings));
  if (outcome.error) throw errorOf(outcome.error);
  // Taken out once: every look at an attribute makes a proxy that somebody has to free.
  const { listen, handle, admit, begin, hear_of_network, stop } = browser;
  return { listen, handle, admit, begin, hear_of_network, stop };
}

/**
 * The worker of offloaded functions has this in the place of an engine.
 *
 * @param {Pyodide} pyodide
 * @param {{name: string, source: string}[]} sources  the job files
 * @returns {(call: Uint8Array[]) => Promise<Uint8Array[]>} makes a call, and gives its answer
 */
export function startOffloaded(pyodide, sources) {
  const { prepare, answer } = pyodide.pyimport("durably_web.outside");
  prepare(JSON.stringify({ jobs: sources, http_wheel: HTTP_WHEEL }));
  return answer;
}

/**
 * @param {Pyodide} pyodide
 * @param {import("./downloads.js").Packages} packages
 */
async function loadPackages(pyodide, packages) {
  /** @type {Record<string, () => Promise<Response>>} */
  const answers = {};
  await Promise.all(
    [...packages.values()].map(async ({ url, bytes }) => {
      const content = await bytes;
      answers[url] = async () => new Response(content);
    }),
  );
  /** @type {string[]} */
  const complaints = [];
  const names = [...packages.keys()];
  const settings = { messageCallback() {}, errorCallback: (/** @type {string} */ text) => void complaints.push(text) };
  try {
    await answering(answers, () => pyodide.loadPackage(names, settings));
  } catch (error) {
    complaints.push(String(lastLine(error)));
  }
  // What goes wrong with a package is said, and not raised.
  const missing = names.filter((name) => !(name in pyodide.loadedPackages));
  if (missing.length > 0) {
    throw new DurablyError("RequirementFailed", `${missing.join(", ")} could not be loaded: ${complaints.join(" ")}`);
  }
}

/**
 * @param {Pyodide} pyodide
 * @param {string} micropip  URL of its wheel
 * @param {string[]} requirements
 */
async function install(pyodide, micropip, requirements) {
  await pyodide.loadPackage(micropip, { checkIntegrity: false, messageCallback() {} });
  let installer;
  try {
    // A package that could not be loaded was only logged: the import is what tells.
    installer = pyodide.pyimport("micropip");
  } catch (error) {
    throw new DurablyError("NotFound", `micropip could not be loaded from ${micropip}`, { cause: error });
  }
  try {
    for (const requirement of requirements) {
      try {
        await installer.install(requirement);
      } catch (error) {
        throw new DurablyError("RequirementFailed", `${requirement} could not be installed: ${lastLine(error)}`, {
          cause: error,
        });
      }
    }
  } finally {
    installer.destroy();
  }
}

/**
 * Of a Python traceback, what went wrong.
 *
 * @param {unknown} error
 */
function lastLine(error) {
  return failureOf(error).message.trim().split("\n").at(-1);
}
