/**
 * Where the leader's worker takes requests, of its own page and of the followers, and tells them of events.
 *
 * Until Python is up, SQLite alone answers what it can; the rest waits.
 *
 * @module
 */

import { failureOf } from "./failures.js";

/** @typedef {import("./early.js").Early} Early */
/** @typedef {import("./protocol.js").FromClient} FromClient */
/** @typedef {import("./progress.js").Bytes} Bytes */
/** @typedef {import("./protocol.js").Phase} Phase */
/** @typedef {import("./protocol.js").ToClient} ToClient */
/** @typedef {import("./python.js").Engine} Engine */
/** @typedef {import("./storage.js").Storage} Storage */

/** @typedef {{tell(message: ToClient): void}} Client */

export class Desk {
  /** @type {Map<Client, string[]>} and what each listens to */
  #clients = new Map();
  /** @type {Early | undefined} */
  #early;
  /** @type {Engine | undefined} */
  #engine;
  /** @type {() => number} */
  #seq = () => 0;
  /** @type {() => boolean} */
  #holds = () => true;
  /** @type {Storage | undefined} */
  #storage;
  /** @type {() => Promise<boolean>} */
  #stands = async () => true;
  /** @type {string | null} why nothing can be written, if so */
  #readOnly = null;
  #closing = false;
  /** @type {PromiseWithResolvers<Engine>} */
  #python = Promise.withResolvers();
  /** @type {{phase: Phase, at: number, loaded?: number, total?: number, readOnly?: string}} */
  #phase = { phase: "locking", at: 0 };

  constructor() {
    this.#python.promise.catch(() => {});
  }

  /** The types of events that somebody listens to. */
  get events() {
    return [...new Set([...this.#clients.values()].flat())];
  }

  /**
   * The database is open: from now on requests are answered, or durably accepted.
   *
   * @param {Early} early
   * @param {Storage} storage
   * @param {() => number} seq  that of the last stored event
   * @param {() => boolean} holds  whether this worker still owns the database
   * @param {() => Promise<boolean>} stands  whether what it writes is kept
   * @param {string | null} readOnly  why nothing can be written, if so: then the engine answers everything, and refuses what would
   */
  open(early, storage, seq, holds, stands, readOnly) {
    this.#readOnly = readOnly;
    this.#early = early;
    this.#storage = storage;
    this.#stands = stands;
    this.#seq = seq;
    this.#holds = holds;
    for (const client of this.#clients.keys()) this.#connect(client);
  }

  /**
   * Python is up: hand over what was accepted before, and then what was held back. Rejects when the database cannot take it now,
   * because it is full for instance. Then the engine answers requests, among them those that make room, triggers go on being
   * accepted, and this may be called again. What a newer version is to have stays in the inbox.
   *
   * @param {Engine} engine
   */
  async hire(engine) {
    try {
      if (this.#readOnly === null) await this.#early?.drain((text, receivedAt) => engine.admit(text, receivedAt));
      this.#early = undefined;
    } finally {
      this.#engine = engine;
      this.#listen();
      this.#python.resolve(engine);
    }
  }

  /** Take no more requests, and tell nobody of what only fails because of the end: the next leader is asked again. */
  close() {
    this.#closing = true;
  }

  /**
   * Python will not come up.
   *
   * @param {unknown} error
   */
  fail(error) {
    this.#python.reject(error);
  }

  /**
   * @param {Phase} phase
   * @param {number} at
   * @param {Bytes} [bytes]  of what it downloads
   */
  reach(phase, at, bytes) {
    this.#phase = { phase, at, ...bytes, ...(this.#readOnly === null ? {} : { readOnly: this.#readOnly }) };
    for (const client of this.#clients.keys()) client.tell({ type: "phase", ...this.#phase });
  }

  /**
   * More of what a phase downloads is there. What comes in before the phase is told when it begins.
   *
   * @param {Phase} phase
   * @param {Bytes} bytes
   */
  load(phase, bytes) {
    if (phase === this.#phase.phase) this.reach(phase, this.#phase.at, bytes);
  }

  /**
   * @param {Client} client
   * @param {string[]} events
   */
  attach(client, events) {
    this.#clients.set(client, events);
    this.#listen();
    if (this.#early || this.#engine) this.#connect(client);
  }

  /** @param {Client} client */
  detach(client) {
    this.#clients.delete(client);
    this.#listen();
  }

  /**
   * @param {Client} client
   * @param {FromClient} message
   */
  receive(client, message) {
    if (message.type === "listen") {
      this.#clients.set(client, message.events);
      this.#listen();
    } else if (this.#closing) {
      // The next leader is asked again.
    } else if (message.type === "storage") {
      void this.#storage?.answer(message.text, message.blob, this.#python.promise).then(({ text, blob, after }) => {
        client.tell({ type: "response", id: message.id, text, ...(blob === undefined ? {} : { blob }) });
        after?.();
      });
    } else {
      const { id } = message;
      this.#answer(message.text).then(
        (text) => {
          // What a worker says whose database was taken over may be long out of date.
          if (text === undefined || !this.#holds() || (this.#closing && JSON.parse(text).status === 503)) return;
          client.tell({ type: "response", id, text });
        },
        // Python will not come up. The page hears of that in other ways, and asks whoever comes next.
        () => {},
      );
    }
  }

  /**
   * @param {string} type
   * @param {string} text
   */
  post(type, text) {
    for (const [client, events] of this.#clients) {
      if (events.includes(type) || (type !== "journal" && events.includes("*"))) client.tell({ type: "event", text });
    }
  }

  /**
   * @param {string} text
   * @returns {Promise<string | undefined>} nothing where what is written is not kept: whoever comes next is asked again
   */
  async #answer(text) {
    // Not behind the request: the run that it asks for may keep this worker busy, and its answer would have to wait.
    if (!(await this.#stands())) return undefined;
    const early = this.#readOnly === null ? await this.#early?.answer(text) : null;
    if (early) return early;
    const engine = this.#engine ?? (await this.#python.promise);
    try {
      return await engine.handle(text);
    } catch (error) {
      const { name, message } = failureOf(error);
      return JSON.stringify({ status: 500, body: { name, error: message } });
    }
  }

  /** @param {Client} client */
  #connect(client) {
    if (!this.#holds()) return;
    client.tell({ type: "connected", seq: this.#seq() });
    client.tell({ type: "phase", ...this.#phase });
  }

  /** An event that nobody hears is not even made. */
  #listen() {
    this.#engine?.listen(JSON.stringify(this.events));
  }
}
