import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Early } from "../../web/early.js";
import { countedUp, newId } from "../../web/ulid.js";
import { connect, read, write } from "./sqlite_in_node.js";

const T = Date.parse("2026-03-01T12:00:00.123Z");
const KEY = new Uint8Array(32).fill(1);
const SCHEMA = 2;

// What is read here of the engine's tables; that the real ones are read right is tested with the engine itself.
const TABLES = [
  "CREATE TABLE durably_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT",
  `CREATE TABLE durably_runs (id TEXT PRIMARY KEY NOT NULL, job_name TEXT NOT NULL, status TEXT NOT NULL, input TEXT NOT NULL,
     output TEXT, error TEXT, labels TEXT NOT NULL, progress TEXT, idempotency_key TEXT, concurrency_key TEXT,
     priority INTEGER NOT NULL DEFAULT 0, run_at INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL, started_at INTEGER,
     completed_at INTEGER, wake_at INTEGER, paused INTEGER NOT NULL DEFAULT 0, parent_run_id TEXT, forked_from TEXT,
     undoing TEXT, schedule TEXT, scheduled_at INTEGER) STRICT`,
  "CREATE TABLE durably_labels (key TEXT NOT NULL, value TEXT NOT NULL, run_id TEXT NOT NULL) STRICT",
  "CREATE TABLE durably_journal (seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, type TEXT NOT NULL, step_name TEXT) STRICT",
];

/** @type {import("../../web/sqlite.js").Connection} */
let connection;
/** @type {Early} */
let early;
let now = T;

beforeEach((context) => {
  connection = connect();
  context.after?.(() => connection.close());
  now = T;
  early = opened();
});

/** @param {Uint8Array[]} keys */
function opened(...keys) {
  return new Early(connection, keys, SCHEMA, () => now);
}

function migrated(version = SCHEMA) {
  write(connection, ...TABLES.map((sql) => [sql, []]), ["INSERT INTO durably_schema VALUES (?, 0)", [version]]);
}

/** @param {Record<string, unknown>} values */
function stored(values = {}) {
  const run = { id: newId(), job_name: "job", status: "completed", input: "{}", labels: "{}", created_at: T, ...values };
  const names = Object.keys(run);
  const sql = `INSERT INTO durably_runs (${names}) VALUES (${names.map(() => "?")})`;
  assert.ok("rows" in write(connection, [sql, Object.values(run)]));
  return run.id;
}

/** @param {string} method @param {string} path */
function text(method, path, query = {}, body = null, id = newId()) {
  return JSON.stringify({ id, method, path, query, body });
}

async function ask(...request) {
  const answer = await early.answer(text(...request));
  return answer === null ? null : JSON.parse(answer);
}

/** Trigger, and give the body of the answer. */
async function trigger(body, id = newId()) {
  const answer = await ask("POST", "/trigger", {}, body, id);
  return answer?.body ?? null;
}

async function triggerMany(body, id = newId()) {
  return (await ask("POST", "/trigger-many", {}, body, id))?.body ?? null;
}

async function runs(query = {}) {
  const answer = await ask("GET", "/runs", query);
  assert.ok(answer === null || answer.status === 200);
  return answer && answer.body;
}

async function ids(query) {
  return (await runs(query))?.map(({ id }) => id) ?? null;
}

async function run(runId) {
  return (await ask("GET", "/run", { runId }))?.body ?? null;
}

function inbox() {
  return read(connection, ["SELECT id FROM durably_inbox ORDER BY number", []]).rows?.[0].flat() ?? null;
}

/** An engine that answers with 200 and remembers what it was given. */
function engine(answer = async () => ({ status: 200, body: {} })) {
  const given = [];
  return {
    given,
    async admit(request, receivedAt) {
      given.push({ ...JSON.parse(request), receivedAt });
      return JSON.stringify(await answer(JSON.parse(request)));
    },
  };
}

// -- triggers -------------------------------------------------------------------------------------------------------------------

test("a trigger is stored when it is answered, and its run has the request's id", async () => {
  const id = newId();
  assert.deepEqual(await ask("POST", "/trigger", {}, { jobName: "job", input: 1 }, id), {
    status: 200,
    body: { runId: id, disposition: "created" },
  });
  assert.deepEqual(inbox(), [id]);
});

test("a pending run is what the engine will make of the trigger", async () => {
  const { runId } = await trigger({
    jobName: "import ü", input: { n: [1, null, "🦆"] }, labels: { org: "acme" }, priority: -3, concurrencyKey: "k", coalesce: "queue", delayMs: 1500,
  });
  assert.deepEqual(await run(runId), {
    id: runId, jobName: "import ü", status: "pending", input: { n: [1, null, "🦆"] }, output: null, error: null, labels: { org: "acme" },
    progress: null, createdAt: "2026-03-01T12:00:00.123Z", startedAt: null, completedAt: null, runAt: "2026-03-01T12:00:01.623Z",
    wakeAt: "2026-03-01T12:00:01.623Z", priority: -3, concurrencyKey: "k", paused: false, parentRunId: null, forkedFrom: null,
    undoing: null, schedule: null, scheduledAt: null,
    stepCount: 0, isTerminal: false, isActive: true,
  });
});

test("each item of many has an id of its own, counted up from the request's", async () => {
  const id = "01HF7YAT00FBCB54955HDWHY7Z";
  const items = [{ input: 1 }, {}, { input: null, labels: { a: "b" }, runAt: "2026-03-01T13:00:00+01:00" }];
  const many = await triggerMany({ jobName: "job", items }, id);
  assert.deepEqual(many.map(({ runId }) => runId), [id, countedUp(id, 1), countedUp(id, 2)]);
  assert.deepEqual(new Set(many.map(({ disposition }) => disposition)), new Set(["created"]));
  assert.deepEqual(inbox(), [id]);
  const read = await runs();
  assert.deepEqual(read.map(({ input }) => input), [{}, {}, 1]);
  assert.deepEqual(read.map(({ runAt }) => runAt), ["2026-03-01T12:00:00.000Z", null, null]);
  // That moment is over.
  assert.deepEqual(read.map(({ wakeAt }) => wakeAt), [null, null, null]);
});

test("a request that is repeated is stored once and answered alike, also by the next leader", async () => {
  const id = newId();
  const first = await triggerMany({ jobName: "job", items: [{ idempotencyKey: "k" }, { idempotencyKey: "k" }, {}] }, id);
  assert.deepEqual(first.map(({ disposition }) => disposition), ["created", "idempotent", "created"]);
  for (early of [early, opened()]) {
    assert.deepEqual(await triggerMany({ jobName: "job", items: [{ idempotencyKey: "k" }, { idempotencyKey: "k" }, {}] }, id), first);
  }
  // The first one counts, whatever comes under its id later.
  assert.deepEqual(await triggerMany({ jobName: "other", items: [{}, {}, {}] }, id), first);
  assert.deepEqual(inbox(), [id]);
});

test("a request that the engine has carried out already is not stored again", async () => {
  migrated();
  const id = stored();
  assert.deepEqual(await trigger({ jobName: "job" }, id), { runId: id, disposition: "created" });
  const keyed = stored({ idempotency_key: "k" });
  assert.deepEqual(await trigger({ jobName: "job", idempotencyKey: "k" }, keyed), { runId: keyed, disposition: "created" });
  assert.equal(inbox(), null);
});

test("what only the journal remembers, the engine is asked about", async () => {
  migrated();
  const id = newId();
  write(connection, ["INSERT INTO durably_journal (run_id, type) VALUES (?, 'run:delete')", [id]]);
  assert.equal(await trigger({ jobName: "job" }, id), null);
  assert.equal(await triggerMany({ jobName: "job", items: [{}, {}] }, id), null);
  assert.equal(inbox(), null);
});

test("an idempotency key leads to the run that had it first: stored, or asked for", async () => {
  migrated();
  const old = stored({ idempotency_key: "old" });
  assert.deepEqual(await trigger({ jobName: "job", idempotencyKey: "old" }), { runId: old, disposition: "idempotent" });
  assert.equal((await trigger({ jobName: "other", idempotencyKey: "old" })).disposition, "created");
  const { runId: young } = await trigger({ jobName: "job", idempotencyKey: "young" });
  assert.deepEqual(await trigger({ jobName: "job", idempotencyKey: "young" }), { runId: young, disposition: "idempotent" });
  const items = ["old", "young", "new", "new"].map((idempotencyKey) => ({ idempotencyKey }));
  const many = await triggerMany({ jobName: "job", items });
  assert.deepEqual(many.map(({ runId }) => runId), [old, young, many[2].runId, many[2].runId]);
  assert.deepEqual(many.map(({ disposition }) => disposition), ["idempotent", "idempotent", "created", "idempotent"]);
  assert.equal(inbox().length, 3);
  // Only what is created is a run of its own.
  assert.equal((await ids({ status: "pending" })).length, 3);
});

test("two triggers of one key that come at once are one run, also when they are sealed", async () => {
  early = opened(KEY);
  const [one, other] = await Promise.all([1, 2].map(() => trigger({ jobName: "job", idempotencyKey: "k" })));
  assert.equal(other.runId, one.runId);
  assert.deepEqual([one.disposition, other.disposition], ["created", "idempotent"]);
  assert.deepEqual(inbox(), [one.runId]);
});

test("what cannot be promised is left to the engine", async () => {
  const refused = [
    null, [], "job", {}, { jobName: "" }, { jobName: 7 }, { jobName: "\ud800" },
    { jobName: "job", concurrencyKey: "k" },
    { jobName: "job", concurrencyKey: "k", coalesce: "skip" },
    { jobName: "job", concurrencyKey: "k", coalesce: "replace" },
    { jobName: "job", coalesce: "queue" },
    { jobName: "job", concurrencyKey: "k", coalesce: "queue", debounceMs: 5 },
    { jobName: "job", concurrencyKey: "k", debounceMs: 5 },
    { jobName: "job", debounceMaxMs: 5 },
    { jobName: "job", unknown: 1 },
    { jobName: "job", idempotencyKey: "" },
    { jobName: "job", idempotencyKey: 5 },
    { jobName: "job", concurrencyKey: {}, coalesce: "queue" },
    { jobName: "job", labels: [] },
    { jobName: "job", labels: { a: 1 } },
    { jobName: "job", labels: { a: "" } },
    { jobName: "job", labels: { "": "a" } },
    { jobName: "job", priority: 1.5 },
    { jobName: "job", priority: "1" },
    { jobName: "job", priority: 2 ** 31 },
    { jobName: "job", delayMs: -1 },
    { jobName: "job", delayMs: "1" },
    { jobName: "job", delayMs: 1e300 },
    { jobName: "job", delayMs: 1, runAt: "2030-01-01T00:00:00Z" },
    { jobName: "job", runAt: 5 },
    { jobName: "job", runAt: "tomorrow" },
    { jobName: "job", runAt: "2030-01-01T00:00:00" },
    { jobName: "job", runAt: "2030-02-30T00:00:00Z" },
    { jobName: "job", runAt: "2030-01-01T24:00:00Z" },
    { jobName: "job", runAt: "1969-01-01T00:00:00Z" },
  ];
  for (const body of refused) {
    assert.equal(await trigger(body), null, JSON.stringify(body));
    if (body?.jobName !== "job") continue;
    const { jobName, ...item } = body;
    assert.equal(await triggerMany({ jobName, items: [{}, item] }), null, JSON.stringify(item));
  }
  for (const body of [{ jobName: "job" }, { jobName: "job", items: [] }, { jobName: "job", items: {} }, { jobName: "", items: [{}] },
    { jobName: "job", items: [{}], more: 1 }, { jobName: "job", items: [null] }, { jobName: "job", items: [{ jobName: "job" }] }]) {
    assert.equal(await triggerMany(body), null, JSON.stringify(body));
  }
  assert.equal(inbox(), null);
});

test("fields that are null are not there", async () => {
  const fields = ["input", "idempotencyKey", "concurrencyKey", "coalesce", "labels", "priority", "delayMs", "runAt"];
  const { runId } = await trigger({ jobName: "job", ...Object.fromEntries(fields.map((name) => [name, null])) });
  const { input, labels, priority, runAt } = await run(runId);
  assert.deepEqual([input, labels, priority, runAt], [{}, {}, 0, null]);
});

test("a request that is none, or has no proper id, is left to the engine", async () => {
  const body = { jobName: "job" };
  for (const id of [undefined, null, 7, "", "abc", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"]) assert.equal(await trigger(body, id ?? null), null);
  for (const other of ["", "{", "[]", "null", '"text"', JSON.stringify({ id: newId(), method: "POST", path: "/trigger", body })]) {
    assert.equal(await early.answer(other), null, other);
  }
  assert.equal(await early.answer(text("POST", "/trigger", {}, { jobName: "job", input: "?" }).replace("?", "\ud800")), null);
  assert.equal(await ask("POST", "/trigger", { a: "b" }, body), null);
  assert.equal(inbox(), null);
});

test("everything else is left to the engine", async () => {
  migrated();
  const runId = stored();
  const others = [["GET", "/steps"], ["GET", "/logs"], ["GET", "/stats"], ["POST", "/cancel"], ["POST", "/retrigger"], ["DELETE", "/run"],
    ["POST", "/run"], ["GET", "/trigger"], ["POST", "/runs/cancel"], ["GET", "/events"]];
  for (const [method, path] of others) assert.equal(await ask(method, path, { runId }), null, path);
});

test("a database without room, or out of order, is told by the engine's names", async () => {
  read(connection, ["PRAGMA max_page_count = 4", []]);
  const full = await ask("POST", "/trigger", {}, { jobName: "job", input: "x".repeat(100_000) });
  assert.equal(full.status, 503);
  assert.equal(full.body.name, "StorageFull");
  assert.match(full.body.error, /^SQLITE_FULL: /);
  read(connection, ["PRAGMA max_page_count = 1000", []]);
  assert.equal((await trigger({ jobName: "job", input: "x".repeat(100_000) })).disposition, "created");
  write(connection, ["DROP TABLE durably_inbox", []]);
  const broken = await ask("POST", "/trigger", {}, { jobName: "job" });
  assert.deepEqual([broken.status, broken.body.name], [503, "StoreUnavailable"]);
  assert.match(broken.body.error, /no such table/);
});

// -- reading --------------------------------------------------------------------------------------------------------------------

test("before the engine has ever been here there are the triggers, newest first", async () => {
  assert.deepEqual(await runs(), []);
  const made = [];
  for (const n of [1, 2, 3]) made.unshift((await trigger({ jobName: "job", input: n })).runId);
  assert.deepEqual(await ids(), made);
  assert.deepEqual(await ids({ limit: "2" }), made.slice(0, 2));
  assert.deepEqual(await ids({ offset: "1", limit: "1" }), made.slice(1, 2));
  assert.deepEqual(await ids({ offset: "7" }), []);
  assert.deepEqual(await ids({ limit: "0" }), []);
});

test("a schema table without any version is no schema yet", async () => {
  write(connection, [TABLES[0], []]);
  const { runId } = await trigger({ jobName: "job", idempotencyKey: "k" });
  assert.deepEqual(await ids(), [runId]);
});

test("triggers stand between stored runs at their places, in every page", async () => {
  migrated();
  const all = [];
  for (let n = 0; n < 12; n++) {
    const id = newId();
    all.unshift(id);
    if ([1, 2, 5, 9, 10].includes(n)) await trigger({ jobName: "job" }, id);
    else stored({ id });
  }
  for (let offset = 0; offset < 14; offset++) {
    assert.deepEqual(await ids({ offset: String(offset) }), all.slice(offset));
    for (let limit = 0; limit < 14; limit++) {
      assert.deepEqual(await ids({ offset: String(offset), limit: String(limit) }), all.slice(offset, offset + limit));
    }
  }
  for (const [at, after] of all.entries()) assert.deepEqual(await ids({ after, limit: "3" }), all.slice(at + 1, at + 4));
  for (const id of all) assert.equal((await run(id)).id, id);
});

test("filters hold for triggers too", async () => {
  migrated();
  const [a, b, c, d] = [newId(), newId(), newId(), newId()];
  await trigger({ jobName: "one", labels: { team: "x", n: "1" } }, a);
  await trigger({ jobName: "two", labels: { team: "x" } }, b);
  stored({ id: c, job_name: "one", status: "pending", labels: '{"team":"x"}' });
  stored({ id: d, job_name: "three", status: "failed", labels: '{"team":"y"}' });
  write(connection, ["INSERT INTO durably_labels VALUES ('team', 'x', ?)", [c]], ["INSERT INTO durably_labels VALUES ('team', 'y', ?)", [d]]);
  assert.deepEqual(await ids({ jobName: "one" }), [c, a]);
  assert.deepEqual(await ids({ jobName: ["two", "three"] }), [d, b]);
  assert.deepEqual(await ids({ status: "pending" }), [c, b, a]);
  assert.deepEqual(await ids({ status: "failed,leased" }), [d]);
  assert.deepEqual(await ids({ status: "failed,pending" }), [d, c, b, a]);
  assert.deepEqual(await ids({ "label.team": "x" }), [c, b, a]);
  assert.deepEqual(await ids({ "label.team": "x", "label.n": "1" }), [a]);
  assert.deepEqual(await ids({ "label.toString": "x" }), []);
  assert.deepEqual(await ids({ "label.team": "x", jobName: "two", status: "pending", limit: "5" }), [b]);
});

test("questions that the engine would refuse are left to it", async () => {
  migrated();
  const runId = stored();
  for (const query of [{ status: "" }, { status: "done" }, { status: "pending," }, { limit: "-1" }, { limit: "1.0" }, { limit: "" }, { limit: "٣" },
    { offset: "x" }, { limit: "1234567890123456" }, { jobName: "" }, { jobName: [] }, { jobName: ["a", ""] }, { "label.": "a" }, { "label.a": "" },
    { createdBefore: "2030-01-01T00:00:00Z" }, { runId }, { limit: 5 }, { after: "\ud800" }, { status: ["pending"] }]) {
    assert.equal(await runs(query), null, JSON.stringify(query));
  }
  for (const query of [{}, { runId: "" }, { runId, more: "1" }, { runId: 7 }, { runId: "nobody" }]) {
    assert.equal(await ask("GET", "/run", query), null, JSON.stringify(query));
  }
});

test("a schema of another version is not read; triggers are stored all the same", async () => {
  for (const version of [1, 3]) {
    connection = connect();
    migrated(version);
    early = opened();
    const old = stored({ idempotency_key: "k" });
    assert.equal(await runs(), null);
    assert.equal(await run(old), null);
    const { runId } = await trigger({ jobName: "job" });
    assert.deepEqual(inbox(), [runId]);
    assert.deepEqual(await trigger({ jobName: "job", idempotencyKey: "k" }), { runId: old, disposition: "idempotent" });
    assert.equal(await run(runId), null);
    connection.close();
  }
});

test("numbers and keys are passed on as they are stored", async () => {
  migrated();
  const big = `1${"0".repeat(400)}`;
  const runId = stored({ input: `{"b":[1.0,-0.0,12345678901234567890,${big}],"10":1,"9":2,"__proto__":{"x":"\\ud800"}}`, output: "null" });
  const answer = await early.answer(text("GET", "/run", { runId }));
  assert.ok(answer.includes(`"input":{"b":[1.0,-0.0,12345678901234567890,${big}],"10":1,"9":2,"__proto__":{"x":"\\ud800"}},"output":null,`));
  assert.equal(JSON.parse(answer).status, 200);
});

test("what only Python can read is left to it", async () => {
  migrated();
  stored();
  for (const values of [
    { input: '{"$type":"tuple","value":[1]}' },
    { output: '[{"a":{"$type":"bytes","value":""}}]' },
    { labels: '{"$type":"a"}' },
    { progress: '{"current":1,"total":null}' },
    { output: "no JSON" },
    { input: "sealed:1:5a991f1c:6vAP7Kq0Lrm10lc6WK5Qf7kKda1ordDp2z/NYw==" },
    { created_at: -1 },
    { run_at: Date.parse("2500-01-01T00:00:00.001Z") },
    { run_at: { i: "9223372036854775807" } },
  ]) {
    const id = stored(values);
    assert.equal(await run(id), null, JSON.stringify(values));
    assert.equal(await runs(), null);
    write(connection, ["DELETE FROM durably_runs WHERE id = ?", [id]]);
    assert.equal((await runs()).length, 1);
  }
});

test("a request in the inbox that is of no known kind is missing from no list, and is handed over", async () => {
  const { runId } = await trigger({ jobName: "job" });
  write(connection, ["INSERT INTO durably_inbox (id, request, received_at) VALUES ('01J0000000FBCB54955HDWHY7C', '{\"new\":1}', 0)", []]);
  early = opened();
  assert.equal(await runs(), null);
  const { admit, given } = engine();
  await early.drain(admit);
  assert.deepEqual([given[0].id, given[1].new], [runId, 1]);
});

test("a trigger of the far future, and one with a tag in it, are stored", async () => {
  const { runId } = await trigger({ jobName: "job", runAt: "2500-01-01T00:00:00.001Z" });
  assert.equal(await run(runId), null);
  const tagged = await trigger({ jobName: "job", input: { $type: "tuple", value: [1] } });
  assert.deepEqual((await run(tagged.runId)).input, { $type: "tuple", value: [1] });
});

// -- sealed ---------------------------------------------------------------------------------------------------------------------

test("with a key stored runs are opened and triggers are sealed", async () => {
  migrated();
  early = opened(KEY);
  const old = stored({
    input: "sealed:1:5a991f1c:nXt1c/nYaC/qo4k4qTz69lO27amYHT51KXtRBc+hBh1jYTRin673Us8R8pC9ewDhNHm4",
    output: '"from before"',
    error: "sealed:1:5a991f1c:6vAP7Kq0Lrm10lc6WK5Qf7kKda1ordDp2z/NYw==",
    progress: "sealed:1:5a991f1c:yboOoeuhhr4bt/hBe8Z5Vk4SAMeFE017P0yYWh18y6ZmBzbmcQ==",
  });
  const { input, output, error, progress } = await run(old);
  assert.deepEqual([input, output, error, progress], [{ word: "ü🦆\0" }, "from before", "", { a: 1 }]);
  const { runId } = await trigger({ jobName: "job", input: "canary" });
  assert.ok(!JSON.stringify(read(connection, ["SELECT * FROM durably_inbox", []])).includes("canary"));
  early = opened(KEY);
  assert.equal((await run(runId)).input, "canary");
  assert.deepEqual(await ids(), [runId, old]);
});

test("with another key, or none, the engine is left to say what is wrong", async () => {
  early = opened(KEY);
  await trigger({ jobName: "job" });
  for (early of [opened(), opened(new Uint8Array(32))]) {
    assert.equal(await runs(), null);
    assert.equal(await trigger({ jobName: "job" }), null);
    await assert.rejects(early.drain(engine().admit), { name: "DecryptionFailed" });
  }
  assert.equal(inbox().length, 1);
});

test("beside sealed values no name may look like one", async () => {
  const bodies = [{ jobName: "sealed:a" }, { jobName: "a", idempotencyKey: "sealed:a" }, { jobName: "a", concurrencyKey: "sealed:a", coalesce: "queue" }];
  for (const body of bodies) assert.equal((await trigger(body)).disposition, "created");
  early = opened(KEY);
  for (const body of bodies) assert.equal(await trigger(body), null);
  await early.drain(engine().admit);
  early = opened(KEY);
  assert.deepEqual(await runs({ jobName: "a" }), []);
  for (const query of [{ jobName: "sealed:a" }, { jobName: ["a", "sealed:a"] }, { "label.a": "sealed:" }, { after: "sealed:1" }]) {
    assert.equal(await runs(query), null);
  }
});

// -- handing over ---------------------------------------------------------------------------------------------------------------

test("the engine gets the requests in order, with the moments at which they came", async () => {
  const first = await trigger({ jobName: "job", input: 1 });
  now += 5;
  const [second] = await triggerMany({ jobName: "job", items: [{}, {}] });
  const { admit, given } = engine();
  await early.drain(admit);
  assert.deepEqual(given.map(({ id, path, receivedAt }) => [id, path, receivedAt]), [
    [first.runId, "/trigger", T],
    [second.runId, "/trigger-many", T + 5],
  ]);
  assert.deepEqual(given[0].body, { jobName: "job", input: 1 });
  assert.deepEqual(inbox(), []);
});

test("one request after the other: the next waits for the answer", async () => {
  for (const input of [1, 2, 3]) await trigger({ jobName: "job", input });
  let inside = 0;
  const { admit, given } = engine(async () => {
    assert.equal(++inside, 1);
    await new Promise(setImmediate);
    inside--;
    return { status: 200, body: {} };
  });
  await early.drain(admit);
  assert.deepEqual(given.map(({ body }) => body.input), [1, 2, 3]);
});

test("what comes meanwhile is handed over too, behind the others", async () => {
  for (const keys of [[], [KEY]]) {
    connection = connect();
    early = opened(...keys);
    const late = [newId(), newId(), newId()];
    const first = await trigger({ jobName: "job" });
    const { admit, given } = engine(async ({ id }) => {
      // One is answered while the engine works. The others come at its end, and nobody waits for their answers here.
      if (id === first.runId) assert.equal((await trigger({ jobName: "job" }, late[0])).runId, late[0]);
      if (id === first.runId) void trigger({ jobName: "job" }, late[1]);
      if (id === late[1]) void trigger({ jobName: "job" }, late[2]);
      return { status: 200, body: {} };
    });
    await early.drain(admit);
    assert.deepEqual(given.map(({ id }) => id), [first.runId, ...late]);
    assert.deepEqual(inbox(), []);
    connection.close();
  }
});

test("many runs that are asked for at once, and the next request within the same millisecond, keep to themselves", async () => {
  const made = await triggerMany({ jobName: "job", items: Array.from({ length: 50 }, () => ({})) });
  for (let n = 0; n < 50; n++) made.push(await trigger({ jobName: "job" }));
  assert.ok(made.every(({ disposition }) => disposition === "created"));
  assert.equal(new Set(await ids()).size, 100);
});

test("at every moment a trigger is either handed over or left to the engine", async () => {
  // Triggers come in at each of the turns around the end.
  for (let turns = 0; turns < 40; turns++) {
    connection = connect();
    early = opened(KEY);
    const taken = [];
    const first = await trigger({ jobName: "job" });
    taken.push(first.runId);
    const { admit, given } = engine();
    const drained = early.drain(admit);
    const answers = [];
    for (let turn = 0; turn < turns; turn++) await (turn % 4 === 3 ? new Promise(setImmediate) : null);
    for (let n = 0; n < 3; n++) answers.push(trigger({ jobName: "job" }));
    await drained;
    for (const answer of await Promise.all(answers)) if (answer !== null) taken.push(answer.runId);
    assert.deepEqual(given.map(({ id }) => id), taken);
    assert.deepEqual(inbox(), []);
    connection.close();
  }
});

test("once all is handed over, nothing is answered here any more", async () => {
  await early.drain(engine().admit);
  assert.equal(await trigger({ jobName: "job" }), null);
  assert.equal(await runs(), null);
  assert.equal(inbox(), null);
  await early.drain(engine().admit);
});

test("a run that the engine has and the inbox still has is told once", async () => {
  migrated();
  const { runId } = await trigger({ jobName: "job" });
  let seen;
  const { admit } = engine(async ({ id }) => {
    stored({ id, status: "leased" });
    seen = await runs();
    return { status: 200, body: {} };
  });
  await early.drain(admit);
  assert.deepEqual(seen.map(({ id, status }) => [id, status]), [[runId, "leased"]]);
});

test("what the engine refuses is done with; what it could not do stays, with all behind it", async () => {
  const made = [];
  for (const input of [1, 2, 3]) made.push((await trigger({ jobName: "job", input })).runId);
  const broken = engine(async ({ body }) =>
    body.input === 2 ? { status: 503, body: { name: "StorageFull", error: "no room" } } : { status: 409, body: { name: "Conflict", error: "" } },
  );
  await assert.rejects(early.drain(broken.admit), { name: "StorageFull", message: "no room" });
  assert.deepEqual(broken.given.map(({ id }) => id), made.slice(0, 2));
  assert.deepEqual(inbox(), made.slice(1));
  made.push((await trigger({ jobName: "job", input: 4 })).runId);
  const { admit, given } = engine();
  await early.drain(admit);
  assert.deepEqual(given.map(({ id }) => id), made.slice(1));
});

test("after a crash in the middle the next one hands over what is left, the same request first", async () => {
  const made = [];
  for (const input of [1, 2]) made.push((await trigger({ jobName: "job", input })).runId);
  await assert.rejects(early.drain(async () => Promise.reject(new Error("terminated"))), /terminated/);
  early = opened();
  const { admit, given } = engine();
  await early.drain(admit);
  assert.deepEqual(given.map(({ id }) => id), made);
});

test("an entry that cannot be forgotten stops the handing over, and is handed over again", async () => {
  const { runId } = await trigger({ jobName: "job" });
  write(connection, ["CREATE TRIGGER keep BEFORE DELETE ON durably_inbox BEGIN SELECT RAISE(ABORT, 'kept'); END", []]);
  await assert.rejects(early.drain(engine().admit), { name: "StoreUnavailable", message: /kept/ });
  write(connection, ["DROP TRIGGER keep", []]);
  const { admit, given } = engine();
  await early.drain(admit);
  assert.deepEqual(given.map(({ id }) => id), [runId]);
});
