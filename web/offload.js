/**
 * Workers for offloaded functions, below the one with the engine. Python decides when one begins and ends
 * (`durably_web/offloading.py`); what is here starts them, carries calls and answers, and notices when one dies.
 *
 * @module
 */

import { DurablyError, failureOf } from "./failures.js";
import { endOfLifeline } from "./leader.js";

/** @typedef {import("./protocol.js").BootOptions} BootOptions */
/** @typedef {import("./downloads.js").Parts} Parts */

/** @typedef {{type: "boot", options: BootOptions, parts: Parts} | {type: "run", parts: Uint8Array[]}} ToOffload */

/**
 * @typedef {{type: "hello", lifeline: string}
 *   | {type: "ready"}
 *   | {type: "answer", parts: Uint8Array[]}
 *   | {type: "failed", error: import("./failures.js").Failure}} FromOffload
 */

// Each is a Python of its own, with some 60 MB.
const MOST_WORKERS = 4;

export class OffloadPool {
  #options;
  #parts;
  /** @type {Map<number, OffloadWorker>} */
  #workers = new Map();

  /**
   * @param {object} settings
   * @param {BootOptions} settings.options  of the engine's worker
   * @param {Promise<Parts>} settings.parts  what that one has downloaded
   */
  constructor({ options, parts }) {
    // No key goes where no database is.
    this.#options = { ...options, encryptionKeys: [] };
    this.#parts = parts;
  }

  /**
   * Start a worker; resolves when it waits for calls.
   *
   * @param {number} id  its name from now on
   * @returns {Promise<void>}
   */
  async start(id) {
    const worker = new OffloadWorker();
    this.#workers.set(id, worker);
    await worker.boot(this.#options, await this.#parts);
  }

  /**
   * Make a call; rejects when the worker dies, or is ended.
   *
   * @param {number} id
   * @param {Uint8Array[]} parts  of the call; their memory goes over to the worker
   * @returns {Promise<Uint8Array[]>} those of its answer
   */
  async run(id, parts) {
    const worker = this.#workers.get(id);
    if (worker === undefined) throw new DurablyError("OffloadFailed", "its worker was ended");
    return worker.run(parts);
  }

  /** @param {number} id */
  end(id) {
    this.#workers.get(id)?.end("its worker was ended");
    this.#workers.delete(id);
  }

  close() {
    for (const id of [...this.#workers.keys()]) this.end(id);
  }

  /** What Python calls, as a part of the module `durably_bridge`. */
  bridge() {
    return {
      offload_size: Math.max(1, Math.min(navigator.hardwareConcurrency || 1, MOST_WORKERS)),
      /** @param {number} id */
      offload_start: (id) => this.start(id),
      /** @type {(id: number, parts: Uint8Array[]) => Promise<Uint8Array[]>} */
      offload_run: (id, parts) => this.run(id, parts),
      /** @param {number} id */
      offload_end: (id) => this.end(id),
    };
  }
}

class OffloadWorker {
  #worker = new Worker(new URL("./offload-worker.js", import.meta.url), { type: "module" });
  #watching = new AbortController();
  /** @type {PromiseWithResolvers<Uint8Array[]> | undefined} what is waited for */
  #asked;
  /** @type {Error | undefined} */
  #death;

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    // Its script could not be loaded, or raised where nobody caught it.
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.end(`its worker died: ${event.message ?? "it cannot be loaded"}`);
    };
    this.#worker.onmessageerror = () => this.end("its worker sent what cannot be read");
  }

  /**
   * @param {BootOptions} options
   * @param {Parts} parts
   */
  async boot(options, parts) {
    await this.#ask({ type: "boot", options, parts }, []);
  }

  /** @param {Uint8Array[]} parts */
  run(parts) {
    return this.#ask({ type: "run", parts }, parts.map((part) => part.buffer));
  }

  /** @param {string} reason */
  end(reason) {
    if (this.#death) return;
    this.#death = new DurablyError("OffloadFailed", reason);
    this.#worker.terminate();
    this.#watching.abort();
    this.#asked?.reject(this.#death);
  }

  /**
   * @param {ToOffload} message
   * @param {Transferable[]} transfer
   */
  async #ask(message, transfer) {
    if (this.#death) throw this.#death;
    this.#asked = Promise.withResolvers();
    this.#worker.postMessage(message, transfer);
    return this.#asked.promise;
  }

  /** @param {FromOffload} message */
  #receive(message) {
    switch (message.type) {
      case "hello":
        endOfLifeline(message.lifeline, this.#watching.signal).then(
          () => this.end("its worker is gone"),
          (error) => {
            if (!this.#watching.signal.aborted) this.end(`its worker cannot be watched: ${failureOf(error).message}`);
          },
        );
        break;
      case "ready":
        this.#asked?.resolve([]);
        break;
      case "answer":
        this.#asked?.resolve(message.parts);
        break;
      case "failed":
        this.end(`its worker died: ${message.error.message}`);
        break;
    }
  }
}
