// Why a request failed, as far as a browser lets anybody know: with a `fetch` and a place of the test's own.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

/** @type {string[]} what was asked, as `METHOD URL mode` */
let asked = [];
/** @type {Set<string>} origins that answer at all */
let there = new Set();

/** @type {any} */
const world = globalThis;

world.location = new URL("https://site.example/app/durably-web/worker.js");
world.origin = "https://site.example";
world.isSecureContext = true;
Object.defineProperty(globalThis, "navigator", { value: { onLine: true }, configurable: true });
world.addEventListener = () => {};
world.fetch = async (/** @type {any} */ resource, /** @type {any} */ options = {}) => {
  const url = new URL(resource.url ?? resource, world.location.href);
  if (options.body && !options.method) throw new TypeError("Failed to execute 'fetch' on 'WorkerGlobalScope': no body with GET");
  asked.push(`${options.method ?? "GET"} ${url.href} ${options.mode ?? "cors"}`);
  if (options.mode === "no-cors" && there.has(url.origin)) return new Response();
  if (url.origin === world.origin && there.has(url.origin)) return new Response("own");
  throw new TypeError("Failed to fetch");
};

const { bridge, hear, isOnline, onHearing, watchNetwork } = await import("../../web/network.js");
watchNetwork();

beforeEach(() => {
  asked = [];
  there = new Set(["https://site.example", "https://api.example"]);
  world.navigator.onLine = true;
  hear(true);
});

/** @param {string} url */
async function failureOf(url) {
  const error = await fetch(url).then(
    () => assert.fail("it answered"),
    (error) => error,
  );
  assert.ok(error instanceof TypeError, "what expects a TypeError gets one");
  assert.equal(/** @type {any} */ (error.cause).message, "Failed to fetch");
  return /** @type {any} */ (error);
}

test("a server that answers, and does not let this site read it", async () => {
  const error = await failureOf("https://api.example/v1/me?key=hush#hush");
  assert.equal(error.name, "CrossOriginRefused");
  assert.equal(error.url, "https://api.example/v1/me");
  assert.match(error.message, /^https:\/\/api\.example\/v1\/me does not let https:\/\/site\.example read .* Access-Control-Allow-Origin: https:\/\/site\.example,/);
  assert.deepEqual(asked, ["GET https://api.example/v1/me?key=hush#hush cors", "HEAD https://api.example/ no-cors"]);
});

test("nobody there, on another origin and on this one", async () => {
  there.clear();
  const far = await failureOf("https://api.example/v1?key=hush");
  assert.deepEqual([far.name, far.url], ["Unreachable", "https://api.example/v1"]);
  assert.ok(!far.message.includes("hush") && far.message.includes("could not be reached"));
  asked = [];
  assert.equal((await failureOf("/app/rows.json")).name, "Unreachable");
  assert.deepEqual(asked, ["GET https://site.example/app/rows.json cors"], "the own site is not asked again: it needs no permission");
});

test("http from https, but not to this machine", async () => {
  const error = await failureOf("http://api.example/v1");
  assert.equal(error.name, "MixedContent");
  assert.match(error.message, /may not ask over http/);
  for (const host of ["127.0.0.1:8000", "localhost", "[::1]:8000", "a.localhost"]) {
    assert.equal(bridge.explain_at_once(`http://${host}/`)[0], "Unreachable", host);
  }
});

test("offline, by what was heard and by what can be seen", async () => {
  /** @type {boolean[]} */
  const heard = [];
  onHearing((online) => heard.push(online));
  hear(false);
  assert.equal((await failureOf("https://api.example/")).name, "Offline");
  assert.equal(await bridge.reaches_home(), false);
  hear(true);
  assert.ok(isOnline());
  world.navigator.onLine = false;
  assert.equal((await failureOf("http://api.example/")).name, "Offline");
  assert.deepEqual(heard, [false, true]);
});

test("what cannot be known at once is said so", async () => {
  const [kind, message, doubtful] = bridge.explain_at_once("https://u:hush@api.example/x?y=hush");
  assert.deepEqual([kind, doubtful], ["Unreachable", true]);
  assert.ok(message.startsWith("https://api.example/x could not be reached, or it does not let"));
  assert.equal((await bridge.explain("https://u:hush@api.example/x?y=hush"))[0], "CrossOriginRefused");
});

test("whether the own site is there", async () => {
  assert.equal(await bridge.reaches_home(), true);
  assert.deepEqual(asked, ["HEAD https://site.example/app/durably-web/worker.js cors"]);
  there.clear();
  assert.equal(await bridge.reaches_home(), false);
});

test("what is not of the network is left alone", async () => {
  await assert.rejects(fetch("https://api.example/", { body: "x" }), { name: "TypeError", message: /Failed to execute/ });
  await assert.rejects(fetch("data:,x"), { name: "TypeError", message: "Failed to fetch" });
  assert.equal(await (await fetch("/own")).text(), "own");
});
