/**
 * The worker of a tab. One of them owns the database and runs the jobs; the others pass on what their pages ask, and wait for
 * their turn.
 *
 * @module
 */

import { Desk } from "./desk.js";
import { Downloads } from "./downloads.js";
import { Early } from "./early.js";
import { DurablyError, errorOf, failureOf } from "./failures.js";
import { Candidacy, holdLifeline } from "./leader.js";
import { hear, isOnline, onHearing, watchNetwork } from "./network.js";
import { OffloadPool } from "./offload.js";
import { openDatabase } from "./opfs.js";
import { canSucceedSleepers, FilesLocked, Ownership } from "./ownership.js";
import { placeOf } from "./place.js";
import { newerSchema, requireStorage } from "./preconditions.js";
import { PROTOCOL_VERSION } from "./protocol.js";
import { bootPython, startEngine } from "./python.js";
import { Reserve } from "./reserve.js";
import { loadSqlite } from "./sqlite.js";
import { Storage, storageEvent } from "./storage.js";
import { Followers, ToLeader } from "./tabs.js";
import { Wheels } from "./wheels.js";

/** @typedef {import("./place.js").Place} Place */
/** @typedef {import("./protocol.js").Aftermath} Aftermath */
/** @typedef {import("./protocol.js").BootOptions} BootOptions */
/** @typedef {import("./protocol.js").FromWorker} FromWorker */
/** @typedef {import("./protocol.js").ToWorker} ToWorker */

// What the database says and may take back, and how long to wait for that.
const PASSING = ["StorageFull", "StoreBusy", "StoreUnavailable"];
const PAUSE_MS = 5_000;
// A file that cannot be used: it is kept, and the site goes on with another one.
const UNUSABLE = ["NotADatabase", "StorageDamaged"];
// How often it is looked whether the files are still there.
const LOOK_MS = 1_000;
// How long Python waits for the first requests.
const FIRST_REQUESTS_MS = 20;

const page = { tell };
const desk = new Desk();

/** @type {string[]} what the page listens to */
let heard = [];
/** @type {ToLeader | undefined} while another worker leads */
let leader;
/** @type {Followers | undefined} while this one leads */
let followers;
/** @type {Candidacy | undefined} */
let candidacy;
/** @type {import("./python.js").Engine | undefined} */
let engine;
/** @type {Aftermath} how the leader before went, as far as somebody knows */
let aftermath = { orphaned: false, blamed: null };
/** What has to be closed, the last one first.
 *
 * @type {(() => unknown)[]} */
const closings = [];
let closed = false;
/** Whether another database has taken the place of the one that is open here. */
let retired = false;
/** @type {ReturnType<typeof setTimeout> | undefined} while it is to be seen whether the file is damaged */
let damage;
/** @type {unknown} what ended the start meanwhile */
let failedStart;
/** @type {string | undefined} why the file that was there was set aside */
let setAside;

/** @param {FromWorker} message */
function tell(message) {
  postMessage(message);
}

/**
 * @param {import("./protocol.js").Phase} phase
 * @param {import("./progress.js").Bytes} [bytes]  of what it downloads
 */
function reach(phase, bytes) {
  desk.reach(phase, Math.round(performance.now()), bytes);
}

/** @param {BootOptions} options */
async function boot(options) {
  await requireStorage();
  const lifeline = await holdLifeline();
  tell({ type: "hello", lifeline });
  const place = await placeOf(options.base, options.database);
  tell({ type: "phase", phase: "locking", at: Math.round(performance.now()) });
  follow(place, lifeline);
  if (options.role === "follower") return;
  const settled = Promise.withResolvers();
  const line = new Candidacy(place.lock, deposed);
  candidacy = line;
  leader?.watch(async () => {
    if (await canSucceedSleepers()) await line.succeed(async () => (await leader?.isAsleep()) ?? false, settled.promise);
    else if (leader) tell({ type: "asleep" });
  });
  const { asleep } = await line.won;
  // To sleep is not to die.
  if (asleep) aftermath = { orphaned: true, blamed: null };
  /** @type {PromiseWithResolvers<void>} until then Python's files only come in */
  const turn = Promise.withResolvers();
  const downloads = new Downloads(options, (phase, bytes) => desk.load(phase, bytes), { turn: turn.promise });
  let database;
  try {
    database = await own(place, options, asleep);
  } finally {
    settled.resolve(undefined);
  }
  await runJobs(database, downloads, options, turn.resolve);
}

/**
 * Ask whoever leads, as long as that is another worker.
 *
 * @param {Place} place
 * @param {string} lifeline
 */
function follow(place, lifeline) {
  let known = false;
  leader = new ToLeader(
    place.channel,
    lifeline,
    heard,
    (message) => {
      if (!known) tell({ type: "role", role: "follower", channel: place.channel });
      known = true;
      // Another worker has dealt with it.
      if (message.type === "connected") aftermath = { orphaned: false, blamed: null };
      tell(message);
    },
    (error) => tell({ type: "failed", error }),
    blame,
    cleared,
  );
}

/** @param {string | null} runId  under which the leader went */
function blame(runId) {
  aftermath = { orphaned: true, blamed: runId };
}

/**
 * Open the database, and accept requests.
 *
 * @param {Place} place
 * @param {BootOptions} options
 * @param {boolean} asleep
 */
async function own(place, options, asleep) {
  leader?.close();
  leader = undefined;
  tell({ type: "role", role: "leader", channel: place.channel });
  const own = new Followers(place.channel, desk, (count) => tell({ type: "followers", count }), blame);
  followers = own;
  closings.push(() => own.close());
  desk.attach(page, heard);
  reach("opening");
  const ownership = await Ownership.take(place, asleep, deposed);
  closings.push(() => ownership.release());
  requireOpen();
  // Python waits for the database to be open. Where both start at once, Chromium sometimes leaves a
  // createSyncAccessHandle() unanswered for ever, and it is no faster.
  const sqlite3 = await loadSqlite(options.runtime);
  const holds = () => !retired && ownership.holds();
  const open = () => {
    const files = { directory: ownership.directory, vfs: `${place.vfs}.${ownership.copy}` };
    return openDatabase(sqlite3, files, options.durability, { holds, onDamage });
  };
  /** @param {string} reason */
  const onDamage = (reason) => {
    damage ??= setTimeout(() => void replaceDamaged(connection, ownership, reason));
  };
  /** @type {import("./sqlite.js").Connection} */
  let connection;
  try {
    connection = await open();
  } catch (error) {
    if (error instanceof FilesLocked && (await canSucceedSleepers())) {
      // Somebody sleeps on them, of whom this worker was not told.
      await ownership.leave();
    } else if (UNUSABLE.includes(failureOf(error).name)) {
      setAside = failureOf(error).message;
      await ownership.setAside(setAside);
      console.warn(`durably-web: the database was set aside, and an empty one is used: ${setAside}`);
    } else {
      throw error;
    }
    connection = await open();
  }
  closings.push(() => connection.close());
  await ownership.tidy();
  requireOpen();
  return { sqlite3, place, ownership, connection, holds };
}

/**
 * A batch met something damaged. Where all of the file is looked at and nothing is found, it is left alone.
 *
 * @param {import("./sqlite.js").Connection} connection
 * @param {Ownership} ownership
 * @param {string} reason
 */
async function replaceDamaged(connection, ownership, reason) {
  if (closed || retired) return;
  if (connection.isWhole()) {
    damage = undefined;
    if (failedStart) await fail(failedStart);
    return;
  }
  retired = true;
  try {
    await ownership.setAside(`the file is damaged: ${reason}`);
  } catch (error) {
    await fail(error);
    return;
  }
  tellOfStorage("storage:set-aside", { reason: `the file is damaged: ${reason}` });
  restart(new DurablyError("StorageDamaged", `the database is damaged (${reason}); it was set aside, and an empty one is used`));
}

/**
 * Let the page start another worker, for the files that there are now.
 *
 * @param {DurablyError | null} error  what happened to those before
 */
function restart(error) {
  if (closed) return;
  closed = true;
  retired = true;
  desk.close();
  tell({ type: "restart", error: error && failureOf(error) });
}

/** The user has cleared the site's data, or the browser has: whatever is written now is nowhere. Also told by the leader. */
function cleared() {
  if (closed) return;
  if (heard.includes("storage:cleared") || heard.includes("*")) tell({ type: "event", text: storageEvent("storage:cleared", {}) });
  followers?.cleared();
  restart(new DurablyError("StorageCleared", "the data of this site was cleared while it was open; an empty database is used"));
}

/**
 * @param {import("./types.js").EventType} type
 * @param {Record<string, unknown>} details
 */
function tellOfStorage(type, details) {
  desk.post(type, storageEvent(type, details));
}

/** Another worker has taken the database over: nothing that is done here counts any more. */
function deposed() {
  if (closed) return;
  closed = true;
  desk.close();
  tell({ type: "deposed" });
}

function requireOpen() {
  if (closed) throw new DurablyError("StoreUnavailable", "this worker was closed while it started");
}

/**
 * @param {Awaited<ReturnType<typeof own>>} database
 * @param {Downloads} downloads
 * @param {BootOptions} options
 * @param {() => void} begin  lets Python begin
 */
async function runJobs(database, downloads, options, begin) {
  const { connection, ownership, holds, place } = database;
  const { schema } = await downloads.manifest;
  const newer = newerSchema(connection, schema);
  const stands = async () => {
    if (await ownership.stands()) return true;
    cleared();
    return false;
  };
  const retire = () => void (retired = true);
  const storage = new Storage(database, options, schema, { retire, restart: () => restart(null) });
  desk.open(new Early(connection, options.encryptionKeys, schema), storage, () => connection.lastSeq(), holds, stands, newer);
  const looking = setInterval(stands, LOOK_MS);
  closings.push(() => clearInterval(looking));
  /** @param {import("./protocol.js").Phase} phase */
  const reachWith = (phase) => reach(phase, downloads.progress[phase]?.bytes);
  reachWith("python");
  // What the page, and those that follow, ask for at once is stored before Python keeps this worker busy.
  setTimeout(begin, FIRST_REQUESTS_MS);
  // Nothing of it answers any more. The page starts another worker when this one is gone.
  const broken = () => close();
  const pyodide = await bootPython(options, downloads, reachWith, broken);
  reach("jobs");
  const wheels = new Wheels(pyodide, downloads.manifest, options.runtime);
  /** @type {import("./python.js").Bridge} */
  const bridge = {
    /** @param {string} text */
    run_batch: (text) => connection.runBatch(text),
    /** @type {(type: string, text: string) => void} */
    post: (type, text) => {
      if (type === "storage:full" || type === "storage:room") storage.full = type === "storage:full";
      desk.post(type, text);
    },
    /** @param {string | null | undefined} runId */
    running: (runId) => tell({ type: "running", runId: runId ?? null }),
    broken,
    wheel: (name) => wheels.load(name),
    ...new OffloadPool({ options, parts: downloads.parts }).bridge(),
  };
  const { sources } = await downloads.parts;
  engine = await startEngine(pyodide, bridge, {
    sources,
    encryptionKeys: options.encryptionKeys,
    events: desk.events,
    aftermath,
  });
  const own = engine;
  // It may have changed while Python started.
  own.hear_of_network(isOnline());
  onHearing(own.hear_of_network);
  await untilItPasses(() => desk.hire(own));
  await untilItPasses(async () => {
    const outcome = JSON.parse(await own.begin());
    if (outcome.error) throw errorOf(outcome.error);
  });
  reach("running");
  // Now that somebody may listen.
  if (setAside !== undefined) tellOfStorage("storage:set-aside", { reason: setAside });
  const reserve = new Reserve(place);
  closings.push(() => reserve.close());
  connection.keep(reserve);
}

/**
 * Do something again and again while the database cannot: until there is room, for instance.
 *
 * @param {() => Promise<void>} action
 */
async function untilItPasses(action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (closed || !PASSING.includes(failureOf(error).name)) throw error;
      console.warn("durably-web:", failureOf(error).message);
      await new Promise((resume) => setTimeout(resume, PAUSE_MS));
    }
  }
}

/** @param {unknown} error */
async function fail(error) {
  desk.fail(error);
  tell({ type: "failed", error: failureOf(error) });
  // Another tab may have better luck; this one must not keep the database from it.
  await letGo();
}

async function letGo() {
  closed = true;
  leader?.close();
  for (let close = closings.pop(); close; close = closings.pop()) await close();
  candidacy?.release();
}

/** @param {import("./protocol.js").ShutdownReason} reason */
async function shutdown(reason) {
  if (closed) return;
  closed = true;
  desk.close();
  try {
    await engine?.stop(reason);
  } finally {
    await letGo();
    tell({ type: "closed" });
  }
}

watchNetwork();
addEventListener("message", ({ data }) => {
  const message = /** @type {ToWorker} */ (data);
  switch (message.type) {
    case "boot":
      if (message.protocol !== PROTOCOL_VERSION) {
        void fail(new DurablyError("BootFailed", "the page and its worker are of two versions: reload the page"));
      } else {
        aftermath = message.aftermath;
        boot(message.options).catch((error) => {
          if (damage !== undefined) failedStart = error;
          else if (!closed) void fail(error);
        });
      }
      break;
    case "listen":
    case "request":
    case "storage":
      if (message.type === "listen") heard = message.events;
      // Between two leaders there is nobody to ask; the page repeats what it has had no answer to.
      if (leader) leader.send(message);
      else desk.receive(page, message);
      break;
    case "network":
      hear(message.online);
      break;
    case "ping":
      tell({ type: "pong" });
      break;
    case "shutdown":
      void shutdown(message.reason);
      break;
  }
});
