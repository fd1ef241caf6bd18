import assert from "node:assert/strict";
import { test } from "node:test";
import { countedUp, isId, newId } from "../../web/ulid.js";

const T = 1_700_000_000_000;

/** A module of its own, which has made no id yet. */
let copies = 0;
async function fresh() {
  return (await import(`../../web/ulid.js?copy=${++copies}`)).newId;
}

test("ids are as the engine makes them of the same instants and random bytes, and further apart", async () => {
  const make = await fresh();
  const ids = [T, T, T - 1, T + 1].map((now) => make(now, (bytes) => bytes.fill(0xff)));
  assert.deepEqual(ids, [
    "01HF7YAT00FZZZZZZZZZZZZZZZ",
    "01HF7YAT00G000000003ZZZZZZ",
    "01HF7YAT00G000000007ZZZZZZ",
    "01HF7YAT01FZZZZZZZZZZZZZZZ",
  ]);
});

test("ids increase strictly, also when the clock goes back", async () => {
  const make = await fresh();
  const ids = Array.from({ length: 300 }, (_, n) => make(T + [0, 5, -40][n % 3] + Math.floor(n / 10)));
  assert.deepEqual(ids, [...new Set(ids)].sort());
  assert.ok(ids.every(isId));
});

test("what is counted up from an id is no other id", async () => {
  const make = await fresh();
  const [one, other] = [make(T), make(T)];
  assert.ok(countedUp(one, 100_000) < other);
});

test("an id says when it was made, and differs from those of other contexts", async () => {
  const [one, other] = [(await fresh())(T), (await fresh())(T)];
  assert.equal(one.slice(0, 10), "01HF7YAT00");
  assert.equal(other.slice(0, 10), "01HF7YAT00");
  assert.notEqual(one, other);
  assert.ok(newId() > one);
});

test("counting up is adding to a number of 128 bits", () => {
  const known = [
    ["01HF7YAT00FBCB54955HDWHY7C", 0, "01HF7YAT00FBCB54955HDWHY7C"],
    ["01HF7YAT00FBCB54955HDWHY7C", 1, "01HF7YAT00FBCB54955HDWHY7D"],
    ["01HF7YAT00FBCB54955HDWHY7Z", 1, "01HF7YAT00FBCB54955HDWHY80"],
    ["01HF7YAT00FBCB54955HDWHY7C", 1000, "01HF7YAT00FBCB54955HDWHZ6M"],
    ["01HF7YAT00FBCB54955HDZZZZZ", 2 ** 31, "01HF7YAT00FBCB54955KDZZZZZ"],
    ["01HF7YAT00ZZZZZZZZZZZZZZZZ", 1, "01HF7YAT010000000000000000"],
    ["00000000000000000000000000", 2 ** 53 - 1, "0000000000000007ZZZZZZZZZZ"],
    ["7ZZZZZZZZZZZZZZZZZZZZZZZZY", 1, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"],
  ];
  for (const [id, n, expected] of known) assert.equal(countedUp(id, n), expected);
  assert.throws(() => countedUp("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", 1), RangeError);
});

test("an id is 26 characters of the alphabet, and no more than 128 bits", () => {
  assert.ok(isId("01HF7YAT00FBCB54955HDWHY7C"));
  for (const other of [
    "01HF7YAT00FBCB54955HDWHY7",
    "01HF7YAT00FBCB54955HDWHY7C0",
    "81HF7YAT00FBCB54955HDWHY7C",
    "01hf7yat00fbcb54955hdwhy7c",
    "01HF7YAT00FBCB54955HDWHY7U",
    "01HF7YAT00FBCB54955HDWHY7I",
    "",
    null,
    7,
  ]) {
    assert.ok(!isId(other), String(other));
  }
});
