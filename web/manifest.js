/**
 * What the runtime says of itself: which files a start needs, where they are, how large they are.
 *
 * @module
 */

import { DurablyError } from "./failures.js";
import { fetchJson } from "./files.js";

/**
 * `pyodide` is a folder in the runtime, or an absolute address. `packages` are loaded before the job files, by their names in
 * `pyodide/pyodide-lock.json`. `lock` is that file where it has no packages. `files` has what a start downloads, by its path below the
 * runtime, or by its absolute address; so it has `cronsim` and `tzdata`, which are fetched when somebody needs them.
 *
 * @typedef {object} Manifest
 * @property {string} version
 * @property {number} schema
 * @property {string} wheel
 * @property {string} micropip
 * @property {string} pyodide_http
 * @property {string} cronsim
 * @property {string} tzdata
 * @property {string} pyodide
 * @property {string} stdlib
 * @property {string} snapshot
 * @property {object} lock
 * @property {string[]} packages
 * @property {Record<string, Described>} files
 */

/** @typedef {{bytes: number, integrity: string}} Described  `integrity` as for a script element, SHA-384. */

/**
 * @param {string} runtime  its folder
 * @returns {Promise<Manifest>}
 */
export async function fetchManifest(runtime) {
  const url = new URL("manifest.json", runtime).href;
  const manifest = /** @type {Partial<Manifest>} */ (await fetchJson(url, "the manifest"));
  for (const name of /** @type {const} */ (["wheel", "pyodide", "stdlib", "snapshot", "lock", "files"])) {
    if (manifest?.[name] === undefined) {
      throw new DurablyError("BootFailed", `the manifest ${url} has no ${name}: it is of another version than the files beside it`);
    }
  }
  return /** @type {Manifest} */ ({ packages: [], ...manifest });
}

/**
 * Each file that the manifest describes, by its absolute address.
 *
 * @param {Manifest} manifest
 * @param {string} runtime
 */
export function describedFiles({ files }, runtime) {
  return new Map(Object.entries(files).map(([name, file]) => [new URL(name, runtime).href, file]));
}
