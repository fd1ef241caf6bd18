/**
 * Starting Pyodide: from the memory of one that has started, where that loads, else from the beginning.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";

/** @typedef {import("pyodide").PyodideInterface} Pyodide */
/** @typedef {import("./downloads.js").Downloads} Downloads */
/** @typedef {import("./downloads.js").PythonFiles} PythonFiles */
/** @typedef {import("./protocol.js").BootOptions} BootOptions */

/**
 * @param {BootOptions} options
 * @param {Downloads} downloads
 * @returns {Promise<{pyodide: Pyodide, restored: boolean}>}
 */
export async function startInterpreter(options, downloads) {
  const files = await downloads.python;
  const where = files?.indexURL ?? /** @type {string} */ (options.pyodide);
  if (files === null) return { pyodide: await failing(where, () => loadElsewhere(where)), restored: false };
  const parts = prepare(files);
  // Without one of them nothing starts, whatever the memory.
  await failing(where, () => parts);
  const restored = await restore(files, parts);
  return { pyodide: restored ?? (await failing(where, async () => load(files, await parts))), restored: restored !== null };
}

/**
 * What a Python from memory is short of: the answers of its surroundings.
 *
 * @param {Pyodide} pyodide
 */
export function settle(pyodide) {
  const { __tzset_js: learnZone, HEAPU32, _timezone, _daylight, _tzname } = /** @type {any} */ (pyodide)._module;
  // The C library asks for the zone once.
  learnZone(_timezone, _daylight, HEAPU32[_tzname >>> 2], HEAPU32[(_tzname >>> 2) + 1]);
  const restored = pyodide.pyimport("durably_web.restored");
  restored.settle(navigator.language || "C");
  restored.destroy();
}

/**
 * What takes a while, all of it beside each other.
 *
 * @param {PythonFiles} files
 */
function prepare({ module, machine, wasm, stdlib, lock }) {
  const parts = Promise.all([module(), machine(), compile(wasm), stdlib, lock]);
  parts.catch(() => {});
  return parts;
}

/** @param {() => Promise<Response>} wasm */
async function compile(wasm) {
  const response = await wasm();
  // Pyodide would wait for it for ever.
  if (!response.ok) throw new DurablyError("NotFound", `${response.url} could not be fetched: the server answered ${response.status}`);
  return WebAssembly.compileStreaming(response);
}

/**
 * @param {PythonFiles} files
 * @param {ReturnType<typeof prepare>} parts
 */
async function restore(files, parts) {
  if (!files.snapshot) return null;
  try {
    return await load(files, await parts, await files.snapshot);
  } catch (error) {
    console.warn("durably-web: Python starts from the beginning, because its memory does not load:", failureOf(error).message);
    return null;
  }
}

/**
 * @param {PythonFiles} files
 * @param {Awaited<ReturnType<typeof prepare>>} parts
 * @param {Uint8Array} [snapshot]
 * @returns {Promise<Pyodide>}
 */
async function load({ indexURL, packageBaseUrl }, parts, snapshot) {
  const [{ loadPyodide }, { default: createPyodideModule }, code, library, lockFileContents] = parts;
  const stdLibURL = `${indexURL}python_stdlib.zip`;
  const answers = { [`${indexURL}pyodide.asm.wasm`]: async () => new Response(), [stdLibURL]: async () => new Response(library) };
  const settings = {
    indexURL,
    createPyodideModule,
    stdLibURL,
    lockFileContents,
    packageBaseUrl,
    ...(snapshot && { _loadSnapshot: snapshot }),
  };
  const { instantiateStreaming } = WebAssembly;
  // The code is compiled already.
  WebAssembly.instantiateStreaming = async (_, imports) => ({ module: code, instance: await WebAssembly.instantiate(code, imports) });
  try {
    return await answering(answers, () => loadPyodide(settings));
  } finally {
    WebAssembly.instantiateStreaming = instantiateStreaming;
  }
}

/**
 * Let Pyodide, which fetches by itself, have what is there already.
 *
 * @template T
 * @param {Record<string, () => Promise<Response>>} answers  by address
 * @param {() => Promise<T>} action  nothing else fetches meanwhile
 * @returns {Promise<T>}
 */
export async function answering(answers, action) {
  const { fetch } = globalThis;
  globalThis.fetch = (input, init) => answers[input instanceof Request ? input.url : String(input)]?.() ?? fetch(input, init);
  try {
    return await action();
  } finally {
    globalThis.fetch = fetch;
  }
}

/** @param {string} indexURL  of a Pyodide that is not the runtime's */
async function loadElsewhere(indexURL) {
  const { loadPyodide } = await import(/* @vite-ignore */ /* webpackIgnore: true */ `${indexURL}pyodide.mjs`);
  return /** @type {Pyodide} */ (await loadPyodide({ indexURL }));
}

/**
 * @template T
 * @param {string} where
 * @param {() => Promise<T>} action
 * @returns {Promise<T>}
 */
async function failing(where, action) {
  try {
    return await action();
  } catch (error) {
    if (error instanceof DurablyError) throw error;
    throw new DurablyError("BootFailed", `Python could not be started from ${where}: ${failureOf(error).message}`, {
      cause: error,
    });
  }
}
