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
   * `RequirementFailed`; asked again, it tries again.
   *
   * @param {"cronsim" | "tzdata"} name
   * @returns {Promise<string>}
   */
  load(name) {
    const known = this.#paths.get(name);
    if (known) return known;
    const path = this.#load(name);
    this.#paths.set(name, path);
    path.catch(() => this.#paths.delete(name));
    return path;
  }

  /** @param {"cronsim" | "tzdata"} name */
  async #load(name) {
    const manifest = await this.#manifest;
    const url = new URL(manifest[name], this.#runtime).href;
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
