/**
 * How the workers of several tabs reach each other: the followers the leader, and the leader each follower.
 *
 * All share one channel, on which they find each other; what a follower and the leader say goes over a channel of their own.
 *
 * @module
 */

import { failureOf, DurablyError } from "./failures.js";
import { endOfLifeline } from "./leader.js";
import { PROTOCOL_VERSION } from "./protocol.js";

/** @typedef {import("./desk.js").Desk} Desk */
/** @typedef {import("./protocol.js").FromClient} FromClient */
/** @typedef {import("./protocol.js").OnChannel} OnChannel */
/** @typedef {import("./protocol.js").ToClient} ToClient */
/** @typedef {import("./protocol.js").ToFollower} ToFollower */

// A leader whose worker and page both leave so many pings unanswered is asleep. Its page answers while the worker computes.
const PING_INTERVAL_MS = 2_000;
const PINGS_UNANSWERED = 5;
const LAST_PING_MS = 1_000;

/** A follower's way to the leader. */
export class ToLeader {
  #common;
  #own;
  #attach;
  #tell;
  #events;
  #onBlame;
  #onCleared;
  #misses = 0;
  #onSign = () => {};
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #pinging;

  /**
   * @param {string} channel
   * @param {string} lifeline  of this worker
   * @param {string[]} events  that its page listens to
   * @param {(message: ToClient) => void} tell
   * @param {(error: import("./failures.js").Failure) => void} onRefused
   * @param {(runId: string | null) => void} onBlame  called with the run under which the leader went
   * @param {() => void} onCleared  called when the leader found the site's data cleared
   */
  constructor(channel, lifeline, events, tell, onRefused, onBlame, onCleared) {
    this.#onBlame = onBlame;
    this.#onCleared = onCleared;
    const client = crypto.randomUUID();
    this.#tell = tell;
    this.#attach = { type: /** @type {const} */ ("attach"), protocol: PROTOCOL_VERSION, client, lifeline };
    this.#events = events;
    this.#common = new BroadcastChannel(channel);
    this.#common.onmessage = ({ data }) => this.#hear(data);
    this.#own = new BroadcastChannel(`${channel}:${client}`);
    this.#own.onmessage = ({ data }) => {
      this.#sign();
      const message = /** @type {ToFollower} */ (data);
      if (message.type === "refused") onRefused(message.error);
      else this.#tell(message);
    };
    this.#ask();
  }

  /**
   * Call `onAsleep` whenever the leader has not answered for long.
   *
   * @param {() => void} onAsleep
   */
  watch(onAsleep) {
    this.#pinging = setInterval(() => {
      if (this.#misses >= PINGS_UNANSWERED) {
        this.#misses = 0;
        onAsleep();
      }
      this.#misses += 1;
      this.#post({ type: "ping" });
    }, PING_INTERVAL_MS);
  }

  /** Whether there is still no sign of the leader, asked once more. */
  async isAsleep() {
    const sign = new Promise((resolve) => (this.#onSign = () => resolve(false)));
    this.#post({ type: "ping" });
    const silence = new Promise((resolve) => setTimeout(() => resolve(true), LAST_PING_MS));
    return /** @type {Promise<boolean>} */ (Promise.race([sign, silence]));
  }

  /** @param {FromClient} message */
  send(message) {
    if (message.type === "listen") this.#events = message.events;
    this.#own.postMessage(message);
  }

  close() {
    clearInterval(this.#pinging);
    this.#common.close();
    this.#own.close();
  }

  /** @param {OnChannel} message */
  #hear(message) {
    if (message.type === "leader") this.#ask();
    if (message.type === "blame") this.#onBlame(message.runId);
    if (message.type === "cleared") this.#onCleared();
    if (message.type === "leader" || message.type === "pong") this.#sign();
  }

  #ask() {
    this.#post({ ...this.#attach, events: this.#events });
  }

  #sign() {
    this.#misses = 0;
    this.#onSign();
  }

  /** @param {OnChannel} message */
  #post(message) {
    this.#common.postMessage(message);
  }
}

/** The leader's way to its followers. */
export class Followers {
  #channel;
  #common;
  #desk;
  #onCount;
  #onBlame;
  /** @type {Map<string, () => void>} */
  #leave = new Map();

  /**
   * @param {string} channel
   * @param {Desk} desk  whose clients they become
   * @param {(count: number) => void} onCount
   * @param {(runId: string | null) => void} onBlame  called with the run under which the leader before went
   */
  constructor(channel, desk, onCount, onBlame) {
    this.#onBlame = onBlame;
    this.#channel = channel;
    this.#desk = desk;
    this.#onCount = onCount;
    this.#common = new BroadcastChannel(channel);
    this.#common.onmessage = ({ data }) => this.#hear(data);
    this.#post({ type: "leader" });
  }

  /** Everybody needs a new worker: those that there are share nothing with those that come. */
  cleared() {
    this.#post({ type: "cleared" });
  }

  close() {
    this.#common.close();
    for (const leave of this.#leave.values()) leave();
  }

  /** @param {OnChannel} message */
  #hear(message) {
    if (message.type === "ping") this.#post({ type: "pong" });
    else if (message.type === "attach") this.#attach(message);
    else if (message.type === "blame") this.#onBlame(message.runId);
  }

  /** @param {Extract<OnChannel, {type: "attach"}>} message */
  #attach({ protocol, client: id, lifeline, events }) {
    // It asks again when it hears us say twice that we are here.
    this.#leave.get(id)?.();
    const own = new BroadcastChannel(`${this.#channel}:${id}`);
    const watching = new AbortController();
    const client = {
      /** @param {ToFollower} message */
      tell(message) {
        // An answer can come after the one who asked has gone.
        if (!watching.signal.aborted) own.postMessage(message);
      },
    };
    if (protocol !== PROTOCOL_VERSION) {
      const error = new DurablyError("StoreUnavailable", "another tab runs another version of this site: close or reload it");
      client.tell({ type: "refused", error: failureOf(error) });
      own.close();
      return;
    }
    const leave = () => {
      watching.abort();
      own.close();
      this.#desk.detach(client);
      this.#leave.delete(id);
    };
    this.#leave.set(id, leave);
    own.onmessage = ({ data }) => this.#desk.receive(client, /** @type {FromClient} */ (data));
    this.#desk.attach(client, events);
    this.#onCount(this.#leave.size);
    endOfLifeline(lifeline, watching.signal).then(
      () => {
        leave();
        this.#onCount(this.#leave.size);
      },
      () => {},
    );
  }

  /** @param {OnChannel} message */
  #post(message) {
    this.#common.postMessage(message);
  }
}

/** What the page of the leader says to other tabs for its worker, while that computes, and when it is gone. */
export class LeadersPage {
  #common;

  /** @param {string} channel */
  constructor(channel) {
    this.#common = new BroadcastChannel(channel);
    this.#common.onmessage = ({ data }) => {
      // A worker that computes is not asleep.
      if (/** @type {OnChannel} */ (data).type === "ping") this.#post({ type: "pong" });
    };
  }

  /**
   * The worker is gone, or will be.
   *
   * @param {string | null} runId  whose code ran last
   */
  blame(runId) {
    this.#post({ type: "blame", runId });
  }

  close() {
    this.#common.close();
  }

  /** @param {OnChannel} message */
  #post(message) {
    this.#common.postMessage(message);
  }
}
