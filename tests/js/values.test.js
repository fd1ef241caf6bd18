import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encodeBytes, encodeFloat, encodeInteger, Float } from "../../web/values.js";

test("null, text and safe integers are themselves", () => {
  for (const value of [null, "", "text", "a\0b", 0, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]) {
    assert.equal(decode(value), value);
  }
});

test("a float stays one, also when it is whole", () => {
  assert.deepEqual(decode({ f: 1 }), new Float(1));
  assert.deepEqual(encodeFloat(1), { f: 1 });
});

test("an integer beyond 2^53 keeps every digit", () => {
  assert.equal(decode({ i: "9007199254740993" }), 9007199254740993n);
  assert.deepEqual(encodeInteger(-9223372036854775808n), { i: "-9223372036854775808" });
  assert.equal(encodeInteger(BigInt(Number.MAX_SAFE_INTEGER)), Number.MAX_SAFE_INTEGER);
  assert.deepEqual(encodeInteger(BigInt(Number.MAX_SAFE_INTEGER) + 1n), { i: "9007199254740992" });
});

test("bytes survive, all of them, and many", () => {
  const bytes = Uint8Array.from({ length: 100_000 }, (_, at) => at % 256);
  assert.deepEqual(decode(encodeBytes(bytes)), bytes);
  assert.deepEqual(decode(encodeBytes(new Uint8Array())), new Uint8Array());
});

test("what cannot cross is refused", () => {
  for (const value of [undefined, true, 1.5, "\ud800", 2 ** 53, {}, { x: 1 }, [], { f: "1" }]) {
    assert.throws(() => decode(value), TypeError);
  }
  assert.throws(() => encodeFloat(Infinity), TypeError);
});
