// The way to a server, against a `fetch` and an `EventSource` that do what the test says.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

// Browsers have had it since 2024, Node since 22.
Promise.withResolvers ??= function () {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const { Http } = await import("../../web/http.js");

const SERVER = "https://example.org/api";

/** Requests that wait for the test. @type {any[]} */
let asked = [];
/** @type {FakeEventSource[]} */
let sources = [];

class FakeEventSource extends EventTarget {
  CLOSED = 2;
  readyState = 0;

  constructor(address, options) {
    super();
    Object.assign(this, { address, ...options });
    sources.push(this);
  }

  close() {
    this.readyState = this.CLOSED;
  }

  tell(type, data) {
    this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data) }));
  }

  break(readyState = 0) {
    this.readyState = readyState;
    this.dispatchEvent(new Event("error"));
  }
}

beforeEach(() => {
  asked = [];
  sources = [];
  mock.timers.enable({ apis: ["setTimeout"] });
  globalThis.EventSource = FakeEventSource;
  globalThis.fetch = (address, request) =>
    new Promise((resolve, reject) => {
      request.signal.addEventListener("abort", () => reject(request.signal.reason));
      asked.push({
        address,
        ...request,
        answer: (status, text, statusText = "") =>
          resolve({ status, statusText, ok: status < 300, text: async () => (typeof text === "string" ? text : JSON.stringify(text)) }),
        fail: () => reject(new TypeError("Failed to fetch")),
      });
    });
});

afterEach(() => mock.timers.reset());

/** What the link tells, in order. */
function told() {
  const heard = [];
  return {
    heard,
    requestTimeout: 60_000,
    events: [],
    onStatus: (status, { error }) => heard.push(error ? `${status}: ${error.name}` : status),
    onEvent: ({ type, seq }) => heard.push([type, seq]),
    onConnected: (connection) => heard.push(connection),
  };
}

async function connect(settings = {}) {
  const outside = { ...told(), ...settings };
  const http = new Http({ url: SERVER, credentials: "same-origin" }, outside);
  await turn();
  asked.shift().answer(200, { ok: true });
  await http.started;
  return { http, heard: outside.heard };
}

test("a server that answers is what a follower has", async () => {
  const outside = told();
  const http = new Http({ url: SERVER, credentials: "include" }, outside);
  assert.equal(http.status, "starting");
  await turn();
  assert.equal(asked[0].address, `${SERVER}/health`);
  assert.equal(asked[0].credentials, "include");
  asked.shift().answer(200, "");
  await http.ready;
  assert.deepEqual([http.status, outside.heard], ["follower", ["follower"]]);
});

test("a request is method, path, query, body and key", async () => {
  const { http } = await connect();
  const request = http.request("POST", "/signal", { runId: "r", name: "a b" }, { n: 1 });
  const list = http.request("GET", "/runs", { jobName: ["a", "b"], "label.x": "&" });
  const change = http.request("DELETE", "/run", { runId: "r" });
  await turn();
  const [first, second, third] = asked;
  assert.deepEqual([first.method, first.address, first.body], ["POST", `${SERVER}/signal?runId=r&name=a+b`, '{"n":1}']);
  assert.equal(first.headers["Content-Type"], "application/json");
  assert.match(first.headers["Idempotency-Key"], /^[0-9A-HJKMNP-TV-Z]{26}$/);
  assert.deepEqual([second.address, second.headers, second.body], [`${SERVER}/runs?jobName=a&jobName=b&label.x=%26`, {}, undefined]);
  assert.deepEqual(Object.keys(third.headers), ["Idempotency-Key"]);
  assert.notEqual(third.headers["Idempotency-Key"], first.headers["Idempotency-Key"]);
  first.answer(200, { success: true });
  second.answer(200, []);
  third.answer(200, { success: true });
  assert.deepEqual(await Promise.all([request, list, change]), [{ success: true }, [], { success: true }]);
});

test("a server that is not reached is asked again, with the same key", async () => {
  const { http, heard } = await connect();
  const request = http.request("POST", "/trigger", {}, { jobName: "a" });
  await turn();
  const keys = [];
  for (const hinder of [(one) => one.fail(), (one) => one.answer(502, "<h1>Bad Gateway</h1>"), (one) => one.fail()]) {
    keys.push(asked[0].headers["Idempotency-Key"]);
    hinder(asked.shift());
    await turn();
    assert.equal(http.status, "starting");
    mock.timers.tick(1_000);
    await turn();
  }
  keys.push(asked[0].headers["Idempotency-Key"]);
  asked.shift().answer(200, { runId: "1" });
  assert.deepEqual(await request, { runId: "1" });
  assert.equal(new Set(keys).size, 1);
  assert.deepEqual(heard, ["follower", "starting: StoreUnavailable", "follower"]);
});

test("what no server answers in time says whether it was reached", async () => {
  const { http } = await connect();
  const silent = http.request("GET", "/runs", {}, null, { timeout: 500 });
  const [silently] = [assert.rejects(silent, { name: "TimeoutError", message: "GET /runs got no answer in 500 ms" })];
  await turn();
  mock.timers.tick(500);
  await silently;
  assert.ok(asked.shift().signal.aborted);
  const lost = assert.rejects(http.request("GET", "/runs", {}, null, { timeout: 500 }), {
    name: "StoreUnavailable",
    message: `GET /runs did not reach ${SERVER}: Failed to fetch`,
  });
  await turn();
  asked.shift().fail();
  await turn();
  mock.timers.tick(500);
  await lost;
});

test("who gives up is told so at once, with their reason", async () => {
  const { http } = await connect();
  const leaving = new AbortController();
  const reason = new Error("enough");
  const request = assert.rejects(http.request("POST", "/trigger", {}, {}, { signal: leaving.signal }), reason);
  await turn();
  leaving.abort(reason);
  await request;
  assert.ok(asked.shift().signal.aborted);
  await assert.rejects(http.request("POST", "/trigger", {}, {}, { signal: leaving.signal }), reason);
  await turn();
  assert.deepEqual(asked, []);
});

test("a refusal has the server's name, or that of its status", async () => {
  const { http } = await connect();
  for (const [status, body, name, message] of [
    [409, { error: "it is completed", name: "Conflict" }, "Conflict", /^it is completed$/],
    [503, { error: "the disk is full", name: "StorageFull" }, "StorageFull", /^the disk is full$/],
    [404, { error: "no run" }, "NotFound", /^no run$/],
    [403, { error: "not yours" }, "Forbidden", /^not yours$/],
    [401, "<h1>Login</h1>", "Unauthorized", /^POST \/trigger was refused: 401 said$/],
    [413, "too large", "PayloadTooLarge", /413/],
    [418, { error: "short and stout" }, "DurablyError", /^short and stout$/],
    [404, "<h1>Not found</h1>", "StoreUnavailable", /is https:\/\/example.org\/api the address of a durably_web server\?/],
    [200, "<!doctype html>", "StoreUnavailable", /was answered with 200 and no JSON/],
    [500, "Internal Server Error", "StoreUnavailable", /was answered with 500 and no JSON/],
  ]) {
    const refused = assert.rejects(http.request("POST", "/trigger", {}, {}), { name, message });
    await turn();
    asked.shift().answer(status, body, "said");
    await refused;
  }
});

test("what is not JSON is refused before it is sent", async () => {
  const { http } = await connect();
  await assert.rejects(http.request("POST", "/trigger", {}, { input: 1n }), { name: "InvalidInput" });
  assert.deepEqual(asked, []);
});

test("a start without a server fails after a while, and everything else with it", async () => {
  const outside = told();
  const http = new Http({ url: SERVER, credentials: "same-origin" }, outside);
  const early = assert.rejects(http.request("GET", "/runs", {}), { name: "StoreUnavailable", message: /GET \/health did not reach/ });
  await turn();
  asked[0].fail();
  asked.length = 0;
  for (let at = 0; at < 30; at++) {
    mock.timers.tick(500);
    await turn();
    asked.shift()?.fail();
    await turn();
  }
  await assert.rejects(http.started, { name: "StoreUnavailable", message: /GET \/health did not reach/ });
  await early;
  await assert.rejects(http.request("GET", "/runs", {}), { name: "StoreUnavailable" });
  assert.deepEqual([http.status, outside.heard], ["failed", ["failed: StoreUnavailable"]]);
});

test("a server that says that it is not healthy yet is waited for", async () => {
  const http = new Http({ url: SERVER, credentials: "same-origin" }, told());
  await turn();
  asked.shift().answer(503, { error: "starting" });
  await turn();
  mock.timers.tick(1_000);
  await turn();
  asked.shift().answer(200, { ok: true });
  await http.started;
});

test("events come over one stream, which is open while somebody listens", async () => {
  const { http, heard } = await connect();
  assert.deepEqual(sources, []);
  http.listen(["run:complete"]);
  http.listen(["run:complete", "journal"]);
  assert.equal(sources.length, 1);
  const [source] = sources;
  assert.equal(source.address, `${SERVER}/runs/subscribe`);
  source.tell("connected", { seq: 7 });
  source.tell("message", { type: "step:start", seq: null, runId: "r" });
  source.tell("message", { type: "run:complete", seq: 8, runId: "r" });
  assert.deepEqual(heard.slice(1), [{ seq: 7, fresh: true }, ["step:start", null], ["run:complete", 8], ["journal", 8]]);
  http.listen([]);
  assert.equal(source.readyState, 2);
  http.listen(["run:fail"]);
  assert.equal(sources.length, 2);
  sources[1].tell("connected", { seq: 9 });
  assert.deepEqual(heard.at(-1), { seq: 9, fresh: true });
});

test("a stream that breaks comes again, by the browser or by us", async () => {
  const { http, heard } = await connect();
  http.listen(["*"]);
  sources[0].tell("connected", { seq: 1 });
  sources[0].break();
  assert.equal(http.status, "starting");
  sources[0].tell("connected", { seq: 2 });
  assert.equal(http.status, "follower");
  sources[0].break(2);
  mock.timers.tick(100);
  assert.equal(sources.length, 1);
  mock.timers.tick(100);
  assert.equal(sources.length, 2);
  sources[1].tell("connected", { seq: 3 });
  const lost = "starting: StoreUnavailable";
  assert.deepEqual(heard.slice(1), [
    { seq: 1, fresh: true },
    ...[lost, "follower", { seq: 2, fresh: false }],
    ...[lost, "follower", { seq: 3, fresh: false }],
  ]);
  sources[1].break(2);
  http.listen([]);
  mock.timers.tick(60_000);
  assert.equal(sources.length, 2);
});

test("a stream that never comes does not hide a server that is there", async () => {
  const { http, heard } = await connect();
  http.listen(["run:complete"]);
  for (let loss = 0; loss < 3; loss++) {
    sources.at(-1).break(2);
    sources.at(-1).break(2);
    await turn();
    assert.deepEqual(asked.map(({ address }) => address), [`${SERVER}/health`]);
    asked.shift().answer(200, {});
    await turn();
    mock.timers.tick(10_000);
  }
  const again = ["starting: StoreUnavailable", "follower"];
  assert.deepEqual(heard, ["follower", ...again, ...again, ...again]);
});

test("what is listened to before a request is heard: the request waits for the stream, but not for ever", async () => {
  const { http } = await connect();
  for (const open of [
    () => sources.at(-1).tell("connected", { seq: 1 }),
    () => sources.at(-1).break(2),
    () => mock.timers.tick(3_000),
    () => http.listen([]),
  ]) {
    http.listen(["run:complete"]);
    const request = http.request("POST", "/trigger", {}, {});
    await turn();
    assert.deepEqual(asked, []);
    open();
    await turn();
    for (const { address, answer } of asked.splice(0)) answer(200, address.endsWith("/trigger") ? { runId: "1" } : {});
    assert.deepEqual(await request, { runId: "1" });
    http.listen([]);
  }
});

test("after close everything rejects, and nothing is open", async () => {
  const { http, heard } = await connect();
  http.listen(["*"]);
  sources[0].tell("connected", { seq: 1 });
  const pending = assert.rejects(http.request("GET", "/runs", {}), { name: "StoreUnavailable", message: "this client was closed" });
  await turn();
  await http.close();
  await pending;
  await http.close();
  assert.ok(asked[0].signal.aborted);
  assert.equal(sources[0].readyState, 2);
  await assert.rejects(http.request("GET", "/runs", {}), { name: "StoreUnavailable" });
  http.listen(["*"]);
  assert.equal(sources.length, 1);
  assert.equal(heard.at(-1), "closed");
});
