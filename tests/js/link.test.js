// The page's side against a worker that does what the test says: no browser, no Python.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { PROTOCOL_VERSION } from "../../web/protocol.js";

/** @type {FakeWorker[]} */
let workers = [];
/** @type {Map<string, () => void>} */
const lifelines = new Map();

class FakeWorker extends EventTarget {
  sent = [];
  terminated = false;

  constructor() {
    super();
    workers.push(this);
  }

  postMessage(message) {
    this.sent.push(structuredClone(message));
  }

  terminate() {
    this.terminated = true;
  }

  tell(data) {
    this.dispatchEvent(Object.assign(new Event("message"), { data }));
  }

  answer(request, status, body) {
    this.tell({ type: "response", id: request.id, text: JSON.stringify({ status, body }) });
  }
}

// Browsers have had it since 2024, Node since 22.
Promise.withResolvers ??= function () {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

globalThis.Worker = FakeWorker;
globalThis.document = { baseURI: "https://example.org/site/page.html" };
globalThis.BroadcastChannel = class {
  close() {}
  postMessage() {}
};
Object.defineProperty(globalThis, "navigator", {
  configurable: true,
  value: {
    locks: {
      query: async () => ({ held: ["one", "two", ...Array.from({ length: 9 }, (_, death) => `death ${death}`)].map((name) => ({ name })) }),
      request: (name, { signal }, callback) =>
        new Promise((resolve, reject) => {
          lifelines.set(name, () => resolve(callback()));
          signal.addEventListener("abort", () => reject(signal.reason));
        }),
    },
  },
});

const { createDurably } = await import("../../web/client.js");

/** @type {import("../../web/client.js").Durably[]} */
let opened = [];

beforeEach(() => {
  workers = [];
  opened = [];
});

afterEach(async () => {
  for (const durably of opened) {
    const closing = durably.close();
    workers.at(-1).tell({ type: "closed" });
    await closing;
  }
});

/** What a worker says whose page is connected. */
function connect(worker, role = "leader", phase = "running") {
  worker.tell({ type: "role", role, channel: "tabs" });
  worker.tell({ type: "connected", seq: 0 });
  worker.tell({ type: "phase", phase, at: 1 });
}

async function lead(options = {}) {
  const creating = createDurably({ jobs: "jobs.py", hangTimeout: 0, ...options });
  await turn();
  workers[0].tell({ type: "hello", lifeline: "one" });
  connect(workers[0]);
  const durably = await creating;
  opened.push(durably);
  return durably;
}

const lastRequest = (worker) => worker.sent.filter(({ type }) => type === "request").at(-1);

test("the worker is told where everything is, in absolute addresses", async () => {
  await lead({ jobs: ["jobs.py", "/more.py"], requirements: ["a-package", "wheels/x.whl"], runtime: "rt" });
  const { type, protocol, options } = workers[0].sent.at(-1);
  assert.equal(type, "boot");
  assert.equal(protocol, PROTOCOL_VERSION);
  assert.deepEqual(options.jobs, ["https://example.org/site/jobs.py", "https://example.org/more.py"]);
  assert.deepEqual(options.requirements, ["a-package", "https://example.org/site/wheels/x.whl"]);
  assert.equal(options.runtime, "https://example.org/site/rt/");
  assert.equal(options.durability, "full");
  assert.equal(options.pyodide, null);
  assert.equal(options.role, "auto");
  assert.deepEqual(options.encryptionKeys, []);
});

test("a request is answered, whatever the order of the answers", async () => {
  const durably = await lead();
  const first = durably.trigger("a", { n: 1 }, { idempotencyKey: "k" });
  const request = lastRequest(workers[0]);
  const second = durably.jobs.b.trigger();
  workers[0].answer(lastRequest(workers[0]), 200, { runId: "2", disposition: "created" });
  workers[0].answer(request, 200, { runId: "1", disposition: "idempotent" });
  assert.deepEqual(await first, { id: "1", disposition: "idempotent" });
  assert.deepEqual(await second, { id: "2", disposition: "created" });
  assert.deepEqual(JSON.parse(request.text), {
    id: request.id,
    method: "POST",
    path: "/trigger",
    query: {},
    body: { jobName: "a", input: { n: 1 }, idempotencyKey: "k" },
  });
});

test("an error keeps its name and message", async () => {
  const durably = await lead();
  const request = durably.cancel("x");
  workers[0].answer(lastRequest(workers[0]), 409, { error: "it is completed", name: "Conflict" });
  await assert.rejects(request, { name: "Conflict", message: "it is completed" });
});

test("an unknown run is null", async () => {
  const durably = await lead();
  const request = durably.getRun("x");
  workers[0].answer(lastRequest(workers[0]), 404, { error: "there is no run", name: "NotFound" });
  assert.equal(await request, null);
});

test("input that is not JSON is refused", async () => {
  const durably = await lead();
  await assert.rejects(durably.trigger("a", { n: 1n }), { name: "InvalidInput" });
});

test("a request without an answer ends", async () => {
  const durably = await lead({ requestTimeout: 1 });
  await assert.rejects(durably.getRuns(), { name: "TimeoutError" });
});

test("a filter becomes a query", async () => {
  const durably = await lead();
  const request = durably.getRuns({ jobName: "a", status: undefined, labels: { org: "acme" }, limit: 5 });
  assert.deepEqual(JSON.parse(lastRequest(workers[0]).text).query, { jobName: "a", limit: "5", "label.org": "acme" });
  workers[0].answer(lastRequest(workers[0]), 200, []);
  assert.deepEqual(await request, []);
});

test("a start that fails rejects with the cause, and ends the worker", async () => {
  const creating = createDurably({ jobs: "jobs.py" });
  workers[0].tell({ type: "failed", error: { name: "StoreUnavailable", message: "no OPFS" } });
  await assert.rejects(creating, { name: "StoreUnavailable", message: "no OPFS" });
  assert.ok(workers[0].terminated);
});

test("a tab is there before Python is, and ready when that is up", async () => {
  const heard = [];
  const creating = createDurably({ jobs: "jobs.py", hangTimeout: 0, onStatus: (status, { phase }) => heard.push([status, phase]) });
  workers[0].tell({ type: "phase", phase: "locking", at: 1 });
  connect(workers[0], "leader", "python");
  const durably = await creating;
  opened.push(durably);
  let ready = false;
  void durably.ready.then(() => (ready = true));
  const request = durably.trigger("a");
  workers[0].answer(lastRequest(workers[0]), 200, { runId: "1", disposition: "created" });
  assert.deepEqual(await request, { id: "1", disposition: "created" });
  assert.equal(ready, false);
  workers[0].tell({ type: "phase", phase: "running", at: 2 });
  await turn();
  assert.equal(ready, true);
  assert.deepEqual(heard, [
    ["starting", "locking"],
    ["leader", "python"],
    ["leader", "running"],
  ]);
});

test("what has no answer is sent again to the next leader, with the same id", async () => {
  const creating = createDurably({ jobs: "jobs.py", hangTimeout: 0 });
  connect(workers[0], "follower");
  const durably = await creating;
  opened.push(durably);
  assert.equal(durably.status, "follower");
  const requests = [durably.trigger("a"), durably.getRuns()];
  const sent = () => workers[0].sent.filter(({ type }) => type === "request");
  const first = sent();
  workers[0].answer(first[1], 200, []);
  await requests[1];
  connect(workers[0], "leader", "python");
  assert.equal(durably.status, "leader");
  assert.deepEqual(sent().slice(2), [first[0]]);
  workers[0].answer(first[0], 200, { runId: "1", disposition: "created" });
  assert.equal((await requests[0]).id, "1");
});

test("what is asked before there is anybody waits", async () => {
  const durably = await lead();
  lifelines.get("one")();
  await turn();
  const request = durably.getRuns();
  assert.equal(workers.length, 2);
  assert.equal(lastRequest(workers[1]), undefined);
  connect(workers[1]);
  workers[1].answer(lastRequest(workers[1]), 200, []);
  assert.deepEqual(await request, []);
});

test("a worker that does not answer is ended, and the run is named whose code ran last", async (context) => {
  context.mock.timers.enable({ apis: ["setInterval"] });
  const durably = await lead({ hangTimeout: 4000 });
  workers[0].tell({ type: "running", runId: "r" });
  for (let second = 0; second < 10; second++) {
    context.mock.timers.tick(1000);
    assert.deepEqual(workers[0].sent.at(-1), { type: "ping" });
    workers[0].tell({ type: "pong" });
  }
  context.mock.timers.tick(5000);
  assert.ok(workers[0].terminated);
  assert.equal(durably.status, "starting");
  const { type, aftermath } = workers[1].sent.at(-1);
  assert.deepEqual([type, aftermath], ["boot", { orphaned: true, blamed: "r" }]);
  assert.deepEqual(workers[0].sent.findLast(({ type }) => type === "boot").aftermath, { orphaned: false, blamed: null });
});

test("a worker whose database was taken over gets in line again", async () => {
  const durably = await lead();
  const request = durably.getRuns();
  workers[0].tell({ type: "deposed" });
  assert.ok(workers[0].terminated);
  assert.equal(durably.status, "starting");
  connect(workers[1], "follower");
  assert.equal(durably.status, "follower");
  workers[1].answer(lastRequest(workers[1]), 200, []);
  assert.deepEqual(await request, []);
});

test("events go to those who listen, and a listener that raises harms nobody", async (context) => {
  context.mock.method(console, "error", () => {});
  const durably = await lead();
  const heard = [];
  durably.on("step:complete", () => {
    throw new Error("mine");
  });
  const stop = durably.on("step:complete", ({ stepName }) => heard.push(stepName));
  durably.on("*", ({ type }) => heard.push(type));
  const event = JSON.stringify({ type: "step:complete", stepName: "parse", seq: null });
  workers[0].tell({ type: "event", text: event });
  stop();
  workers[0].tell({ type: "event", text: event });
  assert.deepEqual(heard, ["parse", "step:complete", "step:complete"]);
});

test("keys go to the worker as bytes, and a wrong one starts none", async () => {
  await assert.rejects(createDurably({ jobs: "jobs.py", encryptionKey: new Uint8Array(5) }), { name: "InvalidInput" });
  assert.equal(workers.length, 0);
  const key = crypto.getRandomValues(new Uint8Array(32));
  const creating = createDurably({ jobs: "jobs.py", encryptionKey: key });
  await turn();
  connect(workers[0]);
  opened.push(await creating);
  assert.deepEqual(workers[0].sent.at(-1).options.encryptionKeys, [key]);
});

test("who follows events hears what is stored; who listens does not hear of that", async () => {
  const durably = await lead();
  const heard = [];
  durably.on("*", ({ type }) => heard.push(type));
  const events = durably.subscribe("r", { after: 1 });
  const first = events.next();
  assert.ok(workers[0].sent.findLast(({ type }) => type === "listen").events.includes("journal"));
  workers[0].answer(lastRequest(workers[0]), 200, { events: [], ended: false });
  await turn();
  workers[0].tell({ type: "event", text: JSON.stringify({ type: "journal", runId: "r", seq: 2 }) });
  await turn();
  workers[0].answer(lastRequest(workers[0]), 200, { events: [{ type: "run:complete", seq: 2 }], ended: true });
  assert.deepEqual(await first, { done: false, value: { type: "run:complete", seq: 2 } });
  assert.equal((await events.next()).done, true);
  assert.deepEqual(heard, []);
  assert.ok(!workers[0].sent.findLast(({ type }) => type === "listen").events.includes("journal"));
});

test("the worker is told what is listened to, and a new worker too", async () => {
  const durably = await lead();
  const listened = (worker) => worker.sent.filter(({ type }) => type === "listen").map(({ events }) => events);
  const stops = [durably.on("log:write", () => {}), durably.on("log:write", () => {}), durably.on("*", () => {})];
  assert.deepEqual(listened(workers[0]), [[], ["log:write"], ["log:write", "*"]]);
  for (const stop of stops) stop();
  assert.deepEqual(listened(workers[0]).slice(3), [["*"], []]);
  durably.on("log:write", () => {});
  lifelines.get("one")();
  await turn();
  assert.deepEqual(listened(workers[1]), [["log:write"]]);
});

test("waiting for a run looks again when an event says that it ended", async () => {
  const durably = await lead();
  const waiting = durably.waitForRun("r");
  workers[0].answer(lastRequest(workers[0]), 200, { id: "r", isTerminal: false });
  await turn();
  workers[0].tell({ type: "event", text: JSON.stringify({ type: "run:complete", runId: "other" }) });
  assert.equal(workers[0].sent.filter(({ type }) => type === "request").length, 1);
  workers[0].tell({ type: "event", text: JSON.stringify({ type: "run:complete", runId: "r" }) });
  await turn();
  workers[0].answer(lastRequest(workers[0]), 200, { id: "r", isTerminal: true, output: 1 });
  assert.equal((await waiting).output, 1);
});

test("a worker that dies is started again: what was asked for and waited for comes", async () => {
  const durably = await lead();
  const waiting = durably.waitForRun("r");
  const request = durably.trigger("a");
  const { id } = lastRequest(workers[0]);
  lifelines.get("one")();
  await turn();
  assert.equal(durably.status, "starting");
  assert.equal(workers.length, 2);
  workers[1].tell({ type: "hello", lifeline: "two" });
  connect(workers[1]);
  const [look, trigger] = workers[1].sent.filter(({ type }) => type === "request");
  assert.equal(trigger.id, id);
  workers[1].answer(trigger, 200, { runId: "t", disposition: "created" });
  workers[1].answer(look, 200, { id: "r", isTerminal: true });
  assert.equal((await waiting).id, "r");
  assert.equal((await request).id, "t");
});

test("a worker that keeps dying is not started for ever", async () => {
  const durably = await lead();
  for (let death = 0; durably.status !== "failed"; death++) {
    assert.ok(death < 10);
    const lifeline = `death ${death}`;
    workers.at(-1).tell({ type: "hello", lifeline });
    connect(workers.at(-1));
    lifelines.get(lifeline)();
    await turn();
  }
  await assert.rejects(durably.getRuns(), { name: "StoreUnavailable" });
  opened = [];
});

test("after close, everything rejects", async () => {
  const durably = await lead();
  opened = [];
  const pending = durably.getRuns();
  const closing = durably.close();
  assert.deepEqual(workers[0].sent.at(-1), { type: "shutdown", reason: "close" });
  workers[0].tell({ type: "closed" });
  await closing;
  assert.ok(workers[0].terminated);
  assert.equal(durably.status, "closed");
  await assert.rejects(pending, { name: "StoreUnavailable" });
  await assert.rejects(durably.getRuns(), { name: "StoreUnavailable" });
  await durably.close();
});
