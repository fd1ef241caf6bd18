/**
 * Wheels of the runtime that few pages need: each is fetched when Python first asks for it, and nothing of it before.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { fetchBytes } from "./files.js";
import { describedFiles } from "./manifest.js";

/** @typedef {import("pyodide").PyodideInterface} Pyodide */
/** @typedef {import("./manifest.js").Manifest} Manifest */

// Who asks has other things to do as well. What comes later is there for the next one who asks.
const PATIENCE_MS = 10_000;

export class Wheels {
  #pyodide;
  #manifest;
  #runtime;
  /** Where each is, or will be. @type {Map<string, Promise<string>>} */
  #paths = new Map();

  /**
   * @param {{FS: Pick<Pyodide["FS"], "writeFile">}} pyodide
   * @param {Promise<Manifest>} manifest
   * @param {string} runtime  its folder
   */
  constructor(pyodide, manifest, runtime) {
    this.#pyodide = pyodide;
    this.#manifest = manifest;
    this.#runtime = runtime;
  }

  /**
   * Where Python finds a wheel of the manifest, which is there when this resolves: packed, as Python can import it. Rejects with
   * `RequirementFailed`, also when it takes long; asked again, it tries again, or goes on waiting.
   *
   * @param {"cronsim" | "tzdata"} name
   * @returns {Promise<string>}
   */
  async load(name) {
    const manifest = await this.#manifest;
    const url = new URL(manifest[name], this.#runtime).href;
    let path = this.#paths.get(name);
    if (path === undefined) {
      path = this.#fetch(name, url, manifest);
      this.#paths.set(name, path);
      path.catch(() => this.#paths.delete(name));
    }
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const late = new Promise((_, reject) => {
      const error = new DurablyError("RequirementFailed", `${name} is not loaded yet: the server has not sent ${url} in ${PATIENCE_MS} ms`);
      timer = setTimeout(reject, PATIENCE_MS, error);
    });
    try {
      return await Promise.race([path, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param {"cronsim" | "tzdata"} name
   * @param {string} url
   * @param {Manifest} manifest
   */
  async #fetch(name, url, manifest) {
    let bytes;
    try {
      bytes = await fetchBytes(url, "the wheel", describedFiles(manifest, this.#runtime).get(url));
    } catch (error) {
      throw new DurablyError("RequirementFailed", `${name} could not be loaded: ${failureOf(error).message}`, { cause: error });
    }
    const path = `/lib/${name}.whl`;
    this.#pyodide.FS.writeFile(path, bytes);
    return path;
  }
}
