/**
 * What a start needs from the server: asked for at once, counted, and computed with only when its turn comes.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { fetchBytes, fetchText } from "./files.js";
import { describedFiles, fetchManifest } from "./manifest.js";
import { Progress } from "./progress.js";

/** @typedef {import("./manifest.js").Described} Described */
/** @typedef {import("./manifest.js").Manifest} Manifest */
/** @typedef {import("./protocol.js").BootOptions} BootOptions */

/**
 * What the engine's worker passes on to those of offloaded functions: they run the same code.
 *
 * @typedef {object} Parts
 * @property {Manifest} manifest
 * @property {Uint8Array<ArrayBuffer>} wheel
 * @property {Uint8Array<ArrayBuffer>} http
 * @property {{name: string, source: string}[]} sources  the job files
 */

/**
 * The files of Python itself.
 *
 * @typedef {object} PythonFiles
 * @property {string} indexURL  their folder
 * @property {string} packageBaseUrl  the folder that the lock's files are relative to: the site's own, wherever Pyodide is
 * @property {() => Promise<{loadPyodide: typeof import("pyodide").loadPyodide}>} module
 * @property {() => Promise<{default: any}>} machine  the module that goes with the WebAssembly
 * @property {() => Promise<Response>} wasm  to be taken once
 * @property {Promise<Uint8Array<ArrayBuffer>>} stdlib
 * @property {Promise<Uint8Array<ArrayBuffer>> | null} snapshot
 * @property {Promise<any>} lock
 */

/**
 * Packages of the lock, by their names.
 *
 * @typedef {Map<string, {url: string, bytes: Promise<Uint8Array<ArrayBuffer>>}>} Packages
 */

const PYODIDE = ["pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm"];

export class Downloads {
  #options;
  #onBytes;
  /** @type {Promise<unknown>} */
  #turn;
  /** @type {Promise<Manifest>} */
  manifest;
  /** @type {Promise<Parts>} */
  parts;
  /** @type {Promise<PythonFiles | null>} `null` where a page has a Pyodide of its own */
  python;
  /** @type {Promise<Packages>} */
  packages;
  /** Of the phase `python`, and of `requirements`. There is nothing to count before the manifest is there.
   *
   * @type {Partial<Record<import("./protocol.js").Phase, Progress>>} */
  progress = {};

  /**
   * @param {BootOptions} options
   * @param {(phase: import("./protocol.js").Phase, bytes: import("./progress.js").Bytes) => void} [onBytes]
   * @param {object} [settings]
   * @param {Promise<unknown>} [settings.turn]  Python's files are asked for at once, and read when this resolves
   * @param {Parts} [settings.parts]  that somebody has downloaded already
   */
  constructor(options, onBytes = () => {}, { turn = Promise.resolve(), parts } = {}) {
    this.#options = options;
    this.#onBytes = onBytes;
    this.#turn = turn;
    this.manifest = parts ? Promise.resolve(parts.manifest) : fetchManifest(options.runtime);
    this.python = this.#begin((manifest, fetchPart) => this.#python(manifest, fetchPart));
    this.parts = parts ? Promise.resolve(parts) : this.#begin((manifest, fetchPart) => this.#parts(manifest, fetchPart));
    this.packages = this.#begin((manifest) => this.#packages(manifest));
    // Whoever waits for them is told; until then it is nobody's.
    for (const download of [this.manifest, this.python, this.parts, this.packages]) quietly(download);
  }

  /**
   * @template T
   * @param {(manifest: Manifest, fetchPart: (name: string, what: string) => Promise<Uint8Array<ArrayBuffer>>) => Promise<T>} action
   * @returns {Promise<T>}
   */
  async #begin(action) {
    const manifest = await this.manifest;
    const { runtime } = this.#options;
    const files = describedFiles(manifest, runtime);
    if (!this.progress.python) {
      const { pyodide, stdlib, snapshot, wheel } = manifest;
      const names = [...PYODIDE.map((name) => `${pyodide}${name}`), stdlib, wheel, ...(this.#options.snapshot ? [snapshot] : [])];
      this.progress.python = this.#count("python", names.map((name) => files.get(new URL(name, runtime).href)));
    }
    const { python } = this.progress;
    return action(manifest, (name, what) => {
      const url = new URL(name, runtime).href;
      return fetchBytes(url, what, files.get(url), (bytes) => python.add(bytes), this.#turn);
    });
  }

  /**
   * @param {import("./protocol.js").Phase} phase
   * @param {(Described | undefined)[]} files
   */
  #count(phase, files) {
    const total = files.reduce((sum, file) => sum + (file?.bytes ?? 0), 0);
    return new Progress(total, (bytes) => this.#onBytes(phase, bytes));
  }

  /**
   * @param {Manifest} manifest
   * @param {(name: string, what: string) => Promise<Uint8Array<ArrayBuffer>>} fetchPart
   * @returns {Promise<Parts>}
   */
  async #parts(manifest, fetchPart) {
    const { runtime, jobs } = this.#options;
    const files = describedFiles(manifest, runtime);
    const http = new URL(manifest.pyodide_http, runtime).href;
    const [wheel, http_, sources] = await Promise.all([
      fetchPart(manifest.wheel, "the wheel"),
      fetchBytes(http, "the wheel", files.get(http)),
      Promise.all(jobs.map(async (url) => ({ name: fileName(url), source: await fetchText(url, "the job file") }))),
    ]);
    return { manifest, wheel, http: http_, sources };
  }

  /**
   * @param {Manifest} manifest
   * @param {(name: string, what: string) => Promise<Uint8Array<ArrayBuffer>>} fetchPart
   * @returns {Promise<PythonFiles | null>}
   */
  async #python(manifest, fetchPart) {
    const { runtime, pyodide, snapshot } = this.#options;
    const indexURL = new URL(manifest.pyodide, runtime).href;
    if (pyodide !== null && pyodide !== indexURL) return null;
    // From somebody else's server: nothing of it runs before it was compared.
    const foreign = /^https?:/.test(manifest.pyodide);
    const own = foreign ? verifiedFiles(manifest, fetchPart) : this.#trustedFiles(manifest, indexURL);
    const files = {
      indexURL,
      packageBaseUrl: new URL("pyodide/", runtime).href,
      ...own,
      stdlib: fetchPart(manifest.stdlib, "Python's standard library"),
      snapshot: snapshot ? fetchPart(manifest.snapshot, "the memory of Python").then(unpacked) : null,
      lock: this.#lock(manifest),
    };
    for (const file of [files.stdlib, files.snapshot, files.lock]) if (file) quietly(file);
    return files;
  }

  /**
   * Of the site itself. WebAssembly is compiled while it comes in, and browsers keep the result: for both it has to come as it is.
   * The modules begin to work when they are imported, and that has to wait for the database.
   *
   * @param {Manifest} manifest
   * @param {string} indexURL
   */
  #trustedFiles(manifest, indexURL) {
    const { python } = this.progress;
    /** @param {string} name */
    const load = async (name) => {
      // A plain file of the runtime, whatever bundled this one: bundlers leave the import as it is.
      const module = await import(/* @vite-ignore */ /* webpackIgnore: true */ `${indexURL}${name}`);
      python?.add(manifest.files[`${manifest.pyodide}${name}`]?.bytes ?? 0);
      return module;
    };
    const url = `${indexURL}pyodide.asm.wasm`;
    const first = fetch(url);
    quietly(first);
    const wasm = async () => {
      const response = await first;
      if (response.ok) quietly(count(response.clone(), (bytes) => python?.add(bytes)));
      return response;
    };
    return { module: () => load("pyodide.mjs"), machine: () => load("pyodide.asm.mjs"), wasm };
  }

  /**
   * @param {Manifest} manifest
   * @returns {Promise<any>}
   */
  async #lock({ lock, packages, files }) {
    if (packages.length === 0) return lock;
    const name = "pyodide/pyodide-lock.json";
    const url = new URL(name, this.#options.runtime).href;
    return JSON.parse(new TextDecoder().decode(await fetchBytes(url, "the list of packages", files[name])));
  }

  /**
   * @param {Manifest} manifest
   * @returns {Promise<Packages>}
   */
  async #packages(manifest) {
    if (manifest.packages.length === 0) return new Map();
    const lock = await (await this.python)?.lock;
    if (!lock) return new Map();
    const files = describedFiles(manifest, this.#options.runtime);
    const folder = new URL("pyodide/", this.#options.runtime);
    const addresses = manifest.packages.map((name) => {
      const entry = lock.packages[name];
      if (!entry) throw new DurablyError("RequirementFailed", `${name} could not be loaded: the list of packages does not have it`);
      return { name, url: new URL(entry.file_name, folder).href };
    });
    const progress = this.#count("requirements", addresses.map(({ url }) => files.get(url)));
    this.progress.requirements = progress;
    return new Map(
      addresses.map(({ name, url }) => {
        const bytes = fetchBytes(url, "the package", files.get(url), (more) => progress.add(more), this.#turn).catch((error) => {
          throw new DurablyError("RequirementFailed", `${name} could not be loaded: ${failureOf(error).message}`, { cause: error });
        });
        quietly(bytes);
        return [name, { url, bytes }];
      }),
    );
  }
}

/**
 * @param {Manifest} manifest
 * @param {(name: string, what: string) => Promise<Uint8Array<ArrayBuffer>>} fetchPart
 */
function verifiedFiles({ pyodide, files }, fetchPart) {
  const [module, machine, code] = PYODIDE.map((name) => {
    const described = files[`${pyodide}${name}`];
    const bytes = described
      ? fetchPart(`${pyodide}${name}`, "Python's file")
      : Promise.reject(new DurablyError("BootFailed", `the manifest does not describe ${pyodide}${name}`));
    quietly(bytes);
    return bytes;
  });
  /** @param {Promise<Uint8Array<ArrayBuffer>>} bytes */
  const load = async (bytes) => {
    const url = URL.createObjectURL(new Blob([await bytes], { type: "text/javascript" }));
    try {
      return await import(/* @vite-ignore */ /* webpackIgnore: true */ url);
    } finally {
      URL.revokeObjectURL(url);
    }
  };
  const wasm = async () => new Response(await code, { headers: { "Content-Type": "application/wasm" } });
  return { module: () => load(module), machine: () => load(machine), wasm };
}

/** @param {Uint8Array<ArrayBuffer>} packed */
async function unpacked(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * @param {Response} response
 * @param {(bytes: number) => void} onBytes
 */
async function count(response, onBytes) {
  for (const reader = response.body?.getReader(); reader; ) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes(value.length);
  }
}

/** @param {Promise<unknown>} promise  whose failure is told to whoever waits for it, if anybody does */
function quietly(promise) {
  promise.catch(() => {});
}

/** @param {string} url */
function fileName(url) {
  return decodeURIComponent(new URL(url).pathname.split("/").at(-1) ?? "");
}
