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
  const restored = await restore(files);
  return { pyodide: restored ?? (await failing(where, () => load(files))), restored: restored !== null };
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

/** @param {PythonFiles} files */
async function restore(files) {
  if (!files.snapshot) return null;
  try {
    return await load(files, await files.snapshot);
  } catch (error) {
    console.warn("durably-web: Python starts from the beginning, because its memory does not load:", failureOf(error).message);
    return null;
  }
}

/**
 * @param {PythonFiles} files
 * @param {Uint8Array} [snapshot]
 * @returns {Promise<Pyodide>}
 */
async function load({ indexURL, packageBaseUrl, module, machine, wasm, stdlib, lock }, snapshot) {
  const [{ loadPyodide }, { default: createPyodideModule }, library, lockFileContents] = await Promise.all([module(), machine(), stdlib, lock]);
  const code = await wasm();
  // Pyodide would wait for it for ever.
  if (!code.ok) throw new DurablyError("NotFound", `${code.url} could not be fetched: the server answered ${code.status}`);
  const stdLibURL = `${indexURL}python_stdlib.zip`;
  const answers = { [`${indexURL}pyodide.asm.wasm`]: async () => code, [stdLibURL]: async () => new Response(library) };
  const settings = {
    indexURL,
    createPyodideModule,
    stdLibURL,
    lockFileContents,
    packageBaseUrl,
    ...(snapshot && { _loadSnapshot: snapshot }),
  };
  return answering(answers, () => loadPyodide(settings));
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
