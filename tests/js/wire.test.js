import assert from "node:assert/strict";
import { test } from "node:test";
import { filterQuery, inputOf, itemsOf, jsonOf, keysOf, limitsOf, onlyLimits, purgeFields, selectionQuery, subscribeOptions, triggerFields } from "../../web/wire.js";

const NOON = "2030-01-31T12:00:00.000Z";
const defined = (fields) => JSON.parse(JSON.stringify(fields));

test("options of a trigger become fields, and what is not given stays away", () => {
  const same = { idempotencyKey: "i", concurrencyKey: "c", coalesce: "queue", labels: { a: "b" }, priority: 3 };
  assert.deepEqual(defined(triggerFields({ ...same, delay: 1500 })), { ...same, delayMs: 1500 });
  assert.deepEqual(defined(triggerFields({ runAt: new Date(NOON) })), { runAt: NOON });
  assert.deepEqual(defined(triggerFields({ runAt: "2030-01-31T14:00:00+02:00" })), { runAt: "2030-01-31T14:00:00+02:00" });
  assert.deepEqual(defined(triggerFields({ debounce: 200 })), { debounceMs: 200 });
  assert.deepEqual(defined(triggerFields({ debounce: { delay: 200, maxDelay: 900 } })), { debounceMs: 200, debounceMaxMs: 900 });
  assert.deepEqual(defined(triggerFields({})), {});
});

test("items have their input beside their options", () => {
  const items = [{ input: { n: 1 }, delay: 0 }, {}, { input: null }];
  assert.deepEqual(defined(itemsOf(items)), [{ input: { n: 1 }, delayMs: 0 }, { input: {} }, { input: null }]);
});

test("conditions become a query", () => {
  const which = { jobName: "a", status: ["failed", "cancelled"], labels: { org: "acme" }, createdBefore: new Date(NOON) };
  assert.deepEqual(selectionQuery(which), { jobName: "a", status: "failed,cancelled", "label.org": "acme", createdBefore: NOON });
  assert.deepEqual(filterQuery({ status: undefined, limit: 5, after: "x" }), { limit: "5", after: "x" });
  assert.deepEqual(filterQuery(), {});
  assert.deepEqual(filterQuery({ jobName: ["a", "b"], status: ["failed"] }), { jobName: ["a", "b"], status: "failed" });
  assert.deepEqual(filterQuery({ jobName: ["a"] }), { jobName: "a" });
});

test("how long to wait stands beside other options", () => {
  const { signal } = new AbortController();
  assert.deepEqual(limitsOf({ labels: {}, signal, timeout: 5 }), [{ signal, timeout: 5 }, { labels: {} }]);
  assert.deepEqual(onlyLimits({ timeout: Infinity }), { signal: undefined, timeout: Infinity });
  assert.deepEqual(subscribeOptions({ after: 3 }), { after: 3, signal: undefined });
});

test("a purge takes an age or an instant", () => {
  assert.deepEqual(defined(purgeFields({ olderThan: 1000, limit: 5 })), { olderThanMs: 1000, limit: 5 });
  assert.deepEqual(defined(purgeFields({ olderThan: new Date(NOON) })), { olderThan: NOON });
});

test("a mistake is told before anything is sent", () => {
  for (const [act, message] of [
    [() => triggerFields({ prority: 1 }), /a trigger has no prority; it has idempotencyKey, /],
    [() => triggerFields({ delay: -1 }), /delay is a number of milliseconds/],
    [() => triggerFields({ delay: Infinity }), /delay is a number of milliseconds/],
    [() => triggerFields({ delay: "5" }), /delay is a number of milliseconds/],
    [() => triggerFields({ runAt: new Date("nonsense") }), /runAt is a valid Date/],
    [() => triggerFields({ runAt: 5 }), /runAt is a valid Date/],
    [() => triggerFields({ debounce: { delay: 1, max: 2 } }), /debounce has no max; it has delay, maxDelay/],
    [() => itemsOf([{ debounce: 1 }]), /an item of triggerMany has no debounce/],
    [() => itemsOf([null]), /an item of triggerMany is/],
    [() => itemsOf({ input: 1 }), /the items of triggerMany are a list/],
    [() => itemsOf([{ input: () => 1 }]), /the input is not JSON: it is a function/],
    [() => inputOf(Symbol("s")), /the input is not JSON: it is a symbol/],
    [() => filterQuery({ jobName: [] }), /jobName is an empty list/],
    [() => filterQuery({ status: [] }), /status is an empty list/],
    [() => filterQuery({ jobName: null }), /jobName is a name, or a list of names, not null/],
    [() => onlyLimits({ timout: 1 }), /a request has no timout; it has signal, timeout/],
    [() => onlyLimits({ timeout: -1 }), /timeout is a number of milliseconds/],
    [() => onlyLimits({ signal: {} }), /signal is an AbortSignal/],
    [() => onlyLimits(null), /options are an object, not null/],
    [() => subscribeOptions({ after: 1.5 }), /after is the seq of an event/],
    [() => subscribeOptions({ timeout: 1 }), /subscribe has no timeout; it has after, signal/],
    [() => selectionQuery({ job: "a" }), /a selection of runs has no job; it has jobName, /],
    [() => filterQuery({ createdBefore: NOON }), /a filter of runs has no createdBefore/],
    [() => purgeFields({ olderThan: undefined }), /olderThan is a valid Date/],
    [() => purgeFields({ olderThan: NaN }), /olderThan is a number of milliseconds/],
  ]) {
    assert.throws(act, { name: "InvalidInput", message });
  }
});

test("a key is 32 bytes, or a CryptoKey that gives them", async () => {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  const [copy] = await keysOf(bytes);
  assert.deepEqual(copy, bytes);
  assert.notEqual(copy, bytes);
  const made = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt", "decrypt"]);
  const both = await keysOf([made, bytes]);
  assert.deepEqual(both, [new Uint8Array(await crypto.subtle.exportKey("raw", made)), bytes]);
});

test("any other key is refused, and never shown", async () => {
  const short = await crypto.subtle.generateKey({ name: "AES-GCM", length: 128 }, true, ["encrypt"]);
  const kept = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt"]);
  for (const [key, reason] of [
    [new Uint8Array(16), /this one has 16 bytes/],
    [short, /this one has 16 bytes/],
    [kept, /this CryptoKey cannot be exported/],
    ["x".repeat(32), /this is a string/],
    [null, /this is null/],
    [[], /there is none/],
  ]) {
    await assert.rejects(keysOf(key), { name: "InvalidInput", message: reason });
  }
});

test("what is nested too deep is refused before it is sent", () => {
  const nested = (levels) => Array.from({ length: levels }).reduce((inner) => [inner], "end");
  assert.equal(jsonOf(nested(400)).length, 2 * 400 + 5);
  assert.throws(() => jsonOf(nested(501)), { name: "InvalidInput", message: /nested deeper than 500 levels/ });
  // Brackets in a string are none.
  for (const text of ["[".repeat(1000), '"'.repeat(3) + "{".repeat(1000), "\\".repeat(5) + '"' + "[".repeat(1000)]) {
    assert.deepEqual(JSON.parse(jsonOf({ text })), { text });
  }
});
