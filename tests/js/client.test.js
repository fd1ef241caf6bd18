// The client against a transport that the test makes, and what `createDurably` accepts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

// Browsers have had it since 2024, Node since 22.
Promise.withResolvers ??= function () {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};
globalThis.document = { baseURI: "https://example.org/site/page.html" };

const { createDurably, Durably, DurablyError } = await import("../../web/client.js");
const { planOf } = await import("../../web/options.js");

/** A client, and the transport below it: requests wait until the test answers them, in order. */
function world(settings = {}) {
  const state = { asked: [], listened: [], status: "leader" };
  state.durably = new Durably(
    (told) => {
      state.told = told;
      return {
        get status() {
          return state.status;
        },
        started: Promise.resolve(),
        ready: Promise.resolve(),
        listen: (types) => state.listened.push(types),
        close: async () => {},
        ...(settings.storage && { storage: settings.storage }),
        request: (method, path, query, body, options) =>
          new Promise((resolve, reject) => state.asked.push({ line: `${method} ${path}`, query, body, options, resolve, reject })),
      };
    },
    { inPage: true, ...settings },
  );
  state.answer = async (body) => {
    state.asked.shift().resolve(body);
    await turn();
  };
  return state;
}

const LIMITS = { signal: undefined, timeout: 5 };

test("every request hands on how long to wait", async () => {
  const { durably, asked } = world();
  const options = { timeout: 5 };
  const which = { jobName: "a" };
  for (const [line, act] of [
    ["POST /trigger", () => durably.trigger("a", {}, { labels: {}, ...options })],
    ["POST /trigger", () => durably.jobs.a.trigger({}, options)],
    ["POST /trigger-many", () => durably.triggerMany("a", [{}], options)],
    ["POST /trigger-many", () => durably.jobs.a.triggerMany([{}], options)],
    ["GET /run", () => durably.getRun("r", options)],
    ["GET /run", () => durably.jobs.a.getRun("r", options)],
    ["GET /runs", () => durably.getRuns(which, options)],
    ["GET /runs", () => durably.jobs.a.getRuns({}, options)],
    ["GET /steps", () => durably.getSteps("r", options)],
    ["GET /logs", () => durably.getLogs("r", options)],
    ["GET /stats", () => durably.stats(options)],
    ["POST /signal", () => durably.signal("r", "go", 1, options)],
    ["POST /cancel", () => durably.cancel("r", options)],
    ["POST /retry", () => durably.retry("r", options)],
    ["POST /retrigger", () => durably.retrigger("r", options)],
    ["POST /fork", () => durably.fork("r", { fromStep: "b", ...options })],
    ["DELETE /run", () => durably.deleteRun("r", options)],
    ["GET /export", () => durably.exportRun("r", options)],
    ["POST /handover/offer", () => durably.offerRun("r", { name: "there", ...options })],
    ["POST /handover/confirm", () => durably.confirmHandover("r", "h", options)],
    ["POST /handover/withdraw", () => durably.withdrawHandover("r", "h", options)],
    ["POST /handover/decline", () => durably.declineHandover("r", "h", options)],
    ["POST /runs/import", () => durably.importRun("{}", options)],
    ["POST /pause", () => durably.pause("r", options)],
    ["POST /resume", () => durably.resume("r", options)],
    ["POST /pause", () => durably.pauseJob("a", options)],
    ["POST /resume", () => durably.resumeJob("a", options)],
    ["POST /runs/cancel", () => durably.cancelRuns(which, options)],
    ["POST /runs/retry", () => durably.retryRuns(which, options)],
    ["POST /runs/pause", () => durably.pauseRuns(which, options)],
    ["POST /runs/resume", () => durably.resumeRuns(which, options)],
    ["POST /runs/delete", () => durably.deleteRuns(which, options)],
    ["POST /purge", () => durably.purgeRuns({ olderThan: 0 }, options)],
    ["PUT /schedule", () => durably.schedule("a", { every: 1, ...options })],
    ["PUT /schedule", () => durably.jobs.a.schedule({ cron: "* * * * *", ...options })],
    ["GET /schedule", () => durably.getSchedule("s", options)],
    ["GET /schedules", () => durably.getSchedules(options)],
    ["POST /schedule/pause", () => durably.pauseSchedule("s", options)],
    ["POST /schedule/resume", () => durably.resumeSchedule("s", options)],
    ["POST /schedule/trigger", () => durably.triggerSchedule("s", options)],
    ["DELETE /schedule", () => durably.removeSchedule("s", options)],
  ]) {
    const refused = assert.rejects(act(), { name: "Conflict" });
    const request = asked.shift();
    assert.deepEqual([request.line, request.options], [line, LIMITS]);
    request.reject(new DurablyError("Conflict", "no"));
    await refused;
    const unknown = act.toString().replace("options", "{ timout: 5 }");
    await assert.rejects(new Function("durably", "which", `return (${unknown})()`)(durably, which), {
      name: "InvalidInput",
      message: /has no timout/,
    });
  }
  assert.deepEqual(asked, []);
});

test("a trigger has its input and options, and a run what it came to", async () => {
  const state = world();
  const first = state.durably.trigger("a", undefined, { delay: 1 });
  const { body } = state.asked[0];
  assert.deepEqual(JSON.parse(JSON.stringify(body)), { jobName: "a", input: {}, delayMs: 1 });
  await state.answer({ runId: "1", disposition: "created" });
  assert.deepEqual(await first, { id: "1", disposition: "created" });
});

test("a schedule has its job, its times and its options", async () => {
  const state = world();
  const { durably, asked } = state;
  for (const [act, sent] of [
    [() => durably.schedule("a", { every: 250 }), { jobName: "a", input: {}, everyMs: 250 }],
    [
      () => durably.schedule("a", { name: "s", every: 1, input: null, labels: { b: "c" }, priority: 2, missed: "all", overlap: "queue", catchUpWindow: 0 }),
      {
        ...{ jobName: "a", name: "s", everyMs: 1, input: null, labels: { b: "c" }, priority: 2 },
        ...{ missed: "all", overlap: "queue", catchUpWindowMs: 0 },
      },
    ],
    [
      () => durably.jobs.a.schedule({ cron: "0 7 * * *", timezone: "Asia/Tokyo", input: { n: 1 } }),
      { jobName: "a", cron: "0 7 * * *", timezone: "Asia/Tokyo", input: { n: 1 } },
    ],
  ]) {
    const made = act();
    assert.deepEqual(JSON.parse(JSON.stringify(asked[0].body)), sent);
    await state.answer({ name: "a", everyMs: 250, catchUpWindowMs: null });
    assert.deepEqual(await made, { name: "a", every: 250, catchUpWindow: null });
  }
  for (const [options, message] of [
    [undefined, /either cron, .*, or every/],
    [{}, /either cron, .*, or every/],
    [{ cron: "* * * * *", every: 5 }, /either cron, .*, or every/],
    [{ every: "5" }, /every is a number of milliseconds/],
    [{ every: NaN }, /every is a number of milliseconds/],
    [{ every: 5, catchUpWindow: -1 }, /catchUpWindow is a number of milliseconds/],
    [{ every: 5, input: () => 1 }, /the input is not JSON/],
    [{ every: 5, timeZone: "UTC" }, /a schedule has no timeZone; it has name, cron/],
    [null, /options are an object|either cron/],
  ]) {
    await assert.rejects(durably.schedule("a", options), { name: "InvalidInput", message });
  }
  assert.deepEqual(asked, []);
});

test("a schedule is asked for by its name, and its run is one like any", async () => {
  const state = world();
  const { durably, asked } = state;
  for (const [act, answer, outcome] of [
    [() => durably.getSchedule("s"), { name: "s", everyMs: null, catchUpWindowMs: 5 }, { name: "s", every: null, catchUpWindow: 5 }],
    [() => durably.pauseSchedule("s"), { name: "s", everyMs: 5, catchUpWindowMs: null }, { name: "s", every: 5, catchUpWindow: null }],
    [() => durably.resumeSchedule("s"), { name: "s", everyMs: 5, catchUpWindowMs: null }, { name: "s", every: 5, catchUpWindow: null }],
    [() => durably.triggerSchedule("s"), { runId: "1", disposition: "created" }, { id: "1", disposition: "created" }],
    [() => durably.removeSchedule("s"), { success: true }, undefined],
  ]) {
    const result = act();
    assert.deepEqual(asked[0].query, { name: "s" });
    await state.answer(answer);
    assert.deepEqual(await result, outcome);
  }
  const all = durably.getSchedules();
  await state.answer([{ name: "s", everyMs: 1, catchUpWindowMs: 2 }]);
  assert.deepEqual(await all, [{ name: "s", every: 1, catchUpWindow: 2 }]);
  const runs = durably.getRuns({ schedule: "s", status: "completed" });
  assert.deepEqual(asked[0].query, { schedule: "s", status: "completed" });
  await state.answer([]);
  assert.deepEqual(await runs, []);
  const unknown = durably.getSchedule("x");
  asked.shift().reject(new DurablyError("NotFound", "there is no schedule x"));
  assert.equal(await unknown, null);
});

test("a job is found by its name, or by a key that stands for it", async () => {
  const state = world();
  const { durably } = state;
  assert.equal(durably.register({ _job: { name: "a" } }), durably);
  assert.equal(durably.jobs._job.name, "a");
  assert.equal(durably.jobs._job, durably.jobs.a);
  assert.equal(durably.jobs.other.name, "other");
  assert.throws(() => durably.register({ b: {} }), { name: "InvalidInput", message: /b has no name/ });
  const runs = durably.jobs._job.getRuns({ status: ["leased", "pending"] });
  assert.deepEqual(state.asked[0].query, { jobName: "a", status: "leased,pending" });
  await state.answer([]);
  assert.deepEqual(await runs, []);
  await assert.rejects(durably.jobs.a.getRuns({ jobName: "b" }), { name: "InvalidInput" });
  for (const [jobName, found] of [["a", true], ["b", false]]) {
    const run = durably.jobs.a.getRun("r");
    await state.answer({ id: "r", jobName });
    assert.equal((await run) !== null, found);
  }
});

test("an unknown run is null; any other refusal is told", async () => {
  const { durably, asked } = world();
  const run = durably.getRun("x");
  asked.shift().reject(new DurablyError("NotFound", "there is no run"));
  assert.equal(await run, null);
  const other = assert.rejects(durably.getRun("x"), { name: "StoreBusy" });
  asked.shift().reject(new DurablyError("StoreBusy", "later"));
  await other;
});

test("to trigger and wait gives the output, or how it ended, within one time", async () => {
  const state = world();
  for (const [run, outcome] of [
    [{ status: "completed", output: 5 }, 5],
    [{ status: "failed", error: "ValueError: no" }, "RunFailed: ValueError: no"],
    [{ status: "cancelled" }, "RunCancelled: run r was cancelled"],
  ]) {
    const output = state.durably.triggerAndWait("a", {}, { labels: { b: "c" }, timeout: 60_000 }).catch(String);
    assert.deepEqual(state.asked[0].body.labels, { b: "c" });
    assert.equal(state.asked[0].options.timeout, 60_000);
    await state.answer({ runId: "r", disposition: "created" });
    await state.answer({ id: "r", isTerminal: true, ...run });
    assert.equal(await output, outcome);
  }
  const late = assert.rejects(state.durably.triggerAndWait("a", {}, { timeout: 1 }), { name: "TimeoutError" });
  await state.answer({ runId: "r", disposition: "created" });
  await late;
});

test("only what somebody listens to, waits for or follows is heard", async () => {
  const { durably, listened, asked } = world();
  const ends = ["run:complete", "run:fail", "run:cancel", "run:delete", "run:handover"];
  const heard = () => listened.splice(0);
  const stops = [durably.on("log:write", () => {}), durably.on("log:write", () => {}), durably.on("*", () => {})];
  assert.deepEqual(heard(), [["log:write"], ["log:write", "*"]]);
  for (const stop of stops) stop();
  assert.deepEqual(heard(), [["*"], []]);
  const waiting = durably.waitForRun("r");
  assert.deepEqual(heard(), [ends]);
  const following = durably.subscribe("r").next();
  assert.deepEqual(heard(), [[...ends, "journal"]]);
  asked.shift().resolve({ id: "r", isTerminal: true });
  await waiting;
  assert.deepEqual(heard(), [["journal"]]);
  asked.shift().resolve({ events: [], ended: true });
  assert.equal((await following).done, true);
  assert.deepEqual(heard(), [[]]);
});

test("hints are for who follows, events for who listens", async () => {
  const { durably, told } = world();
  const heard = [];
  durably.on("*", ({ type }) => heard.push(type));
  told.onEvent({ type: "journal", runId: "r", seq: 1 });
  told.onEvent({ type: "run:progress", runId: "r", seq: 1 });
  assert.deepEqual(heard, ["run:progress"]);
});

test("a new connection tells what was missed, and makes everybody look again", async () => {
  const { durably, told, asked } = world();
  told.onConnected({ seq: 1 });
  const heard = [];
  durably.on("*", ({ seq }) => heard.push(seq));
  const waiting = durably.waitForRun("r");
  asked.shift().resolve({ id: "r", isTerminal: false });
  await turn();
  told.onConnected({ seq: 2 });
  await turn();
  assert.deepEqual(asked.map(({ line }) => line).sort(), ["GET /events", "GET /run"]);
  const timestamp = new Date(Date.now() + 1_000).toISOString();
  asked.find(({ line }) => line === "GET /events").resolve({ events: [{ type: "run:complete", seq: 2, timestamp }] });
  asked.find(({ line }) => line === "GET /run").resolve({ id: "r", isTerminal: true });
  assert.equal((await waiting).id, "r");
  assert.deepEqual(heard, [2]);
});

test("status comes from the transport, and what onStatus raises harms nobody", async (context) => {
  context.mock.method(console, "error", () => {});
  const heard = [];
  const { durably, told } = world({
    onStatus: (status, { phase }) => {
      heard.push([status, phase]);
      throw new Error("mine");
    },
  });
  told.onStatus("leader", { phase: "python" });
  assert.deepEqual([durably.status, heard], ["leader", [["leader", "python"]]]);
  await durably.init();
});

test("storage is this browser's, where the runs are", async () => {
  Object.defineProperty(globalThis, "navigator", {
    configurable: true,
    value: { storage: { estimate: async () => ({ usage: 1, quota: 2, usageDetails: {} }), persisted: async () => true } },
  });
  const inPage = world({
    storage: async (method, path) => (method === "GET" && path === "/storage" ? { bytes: 3, free: 0, full: false, setAside: [] } : null),
  });
  const database = { bytes: 3, free: 0, full: false, setAside: [] };
  assert.deepEqual(await inPage.durably.storage(), { usage: 1, quota: 2, persisted: true, ...database });
  navigator.storage.estimate = async () => {
    throw new TypeError("no");
  };
  assert.deepEqual(await inPage.durably.storage(), { usage: null, quota: null, persisted: true, ...database });
  for (const ask of ["storage", "persist", "exportDatabase", "deleteSetAside", "importDatabase"]) {
    await assert.rejects(world({ inPage: false }).durably[ask]("one"), { name: "InvalidInput" });
  }
});

test("options become absolute, with defaults that fit together", () => {
  const { boot, hangTimeout, requestTimeout } = planOf({
    jobs: ["jobs.py", "/more.py"],
    requirements: ["a-package", "wheels/x.whl"],
    runtime: "rt",
    base: "..",
  });
  assert.deepEqual(boot, {
    jobs: ["https://example.org/site/jobs.py", "https://example.org/more.py"],
    database: "default",
    base: "/",
    runtime: "https://example.org/site/rt/",
    pyodide: null,
    snapshot: true,
    requirements: ["a-package", "https://example.org/site/wheels/x.whl"],
    durability: "full",
    encryptionKeys: [],
    role: "auto",
  });
  assert.deepEqual([hangTimeout, requestTimeout], [120_000, 60_000]);
  assert.deepEqual(planOf({ jobs: "a.py", pyodide: "//cdn.example/py", hangTimeout: 0 }).boot.pyodide, "https://cdn.example/py/");
  assert.deepEqual(planOf({ role: "follower" }).boot.jobs, []);
  assert.deepEqual(planOf({ url: "/api/durably/", jobs: undefined, requestTimeout: 5 }), {
    server: { url: "https://example.org/api/durably", credentials: "same-origin" },
    requestTimeout: 5,
  });
});

test("options that cannot work are refused, with what to do", async () => {
  for (const [options, message] of [
    [{}, /createDurably needs jobs, .* or url, /],
    [undefined, /takes an object with options/],
    [{ jobs: [] }, /createDurably needs jobs/],
    [{ jobs: "a.py", url: "/api" }, /with url the jobs run on a server, so jobs would have no effect/],
    [{ url: "/api", database: "x", role: "auto" }, /so database, role would have no effect/],
    [{ jobs: "a.py", credentials: "include" }, /credentials would have no effect without url/],
    [{ job: "a.py" }, /has no option job; it has jobs, /],
    [{ jobs: 5 }, /jobs is an address, not 5/],
    [{ jobs: "https://" }, /jobs is no address: "https:\/\/"/],
    [{ url: "ftp://example.org" }, /url is the http or https address/],
    [{ jobs: "a.py", role: "leader" }, /role is "auto" or "follower", not "leader"/],
    [{ jobs: "a.py", durability: "none" }, /durability is "full" or "relaxed", not "none"/],
    [{ jobs: "a.py", hangTimeout: -1 }, /hangTimeout is a number of milliseconds/],
    [{ jobs: "a.py", offline: "no" }, /offline is true or false, not no/],
    [{ jobs: "a.py", requestTimeout: "5" }, /requestTimeout is a number of milliseconds/],
    [{ jobs: "a.py", requirements: "x" }, /requirements is a list/],
    [{ jobs: "a.py", onStatus: 5 }, /onStatus is a function/],
    [{ jobs: "a.py", encryptionKey: new Uint8Array(5) }, /this one has 5 bytes/],
  ]) {
    await assert.rejects(createDurably(options), { name: "InvalidInput", message });
  }
});
