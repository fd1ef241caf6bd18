import assert from "node:assert/strict";
import { test } from "node:test";
import { Sealer } from "../../web/sealing.js";

const [OLD, NEW, OTHER] = [1, 2, 3].map((number) => new Uint8Array(32).fill(number));

// Sealed by durably_web.encryption.AesGcmCodec.
const BY_PYTHON = [
  [OLD, "sealed:1:5a991f1c:nXt1c/nYaC/qo4k4qTz69lO27amYHT51KXtRBc+hBh1jYTRin673Us8R8pC9ewDhNHm4", '{"word":"ü🦆\\u0000"}'],
  [OLD, "sealed:1:5a991f1c:6vAP7Kq0Lrm10lc6WK5Qf7kKda1ordDp2z/NYw==", ""],
  [OLD, "sealed:1:5a991f1c:yboOoeuhhr4bt/hBe8Z5Vk4SAMeFE017P0yYWh18y6ZmBzbmcQ==", '{"a":1.0}'],
  [NEW, "sealed:1:559b3eee:mD47EyXDzHnfca7/ZktfsXturhKZFmboxIhYRG44sinaxauVuAXhyV0C59E9Tx2uhLby", '{"word":"ü🦆\\u0000"}'],
];

/** @param {string} name */
function refused(name = "DecryptionFailed") {
  return (error) => error.name === name;
}

test("what Python sealed is opened", async () => {
  for (const [key, sealed, text] of BY_PYTHON) {
    assert.equal(await new Sealer([key]).open(sealed), text);
    assert.equal(await new Sealer([OTHER, key]).open(sealed), text);
  }
});

test("what was sealed here is opened here, and looks different each time", async () => {
  const sealer = new Sealer([NEW, OLD]);
  for (const text of ["", "a", '{"word":"ü🦆\u0000"}', "\ufeffmark", "x".repeat(200_000), "sealed:1:"]) {
    const [one, other] = [await sealer.seal(text), await sealer.seal(text)];
    assert.notEqual(one, other);
    assert.match(one, /^sealed:1:559b3eee:[A-Za-z0-9+/]+=*$/);
    assert.equal(await sealer.open(one), text);
    assert.equal(await new Sealer([NEW]).open(one), text);
    await assert.rejects(new Sealer([OLD]).open(one), /sealed with the key 559b3eee, and there are only 5a991f1c/);
  }
});

test("without a key nothing is sealed, and what is sealed stays closed", async () => {
  const sealer = new Sealer([]);
  assert.equal(sealer.seals, false);
  assert.equal(await sealer.seal("{}"), "{}");
  assert.equal(await sealer.open("{}"), "{}");
  await assert.rejects(sealer.open(BY_PYTHON[0][1]), /there is no key/);
});

test("a text from before there was a key is read as it is", async () => {
  assert.equal(await new Sealer([OLD]).open('{"a":1}'), '{"a":1}');
});

test("what was changed or cut off is refused", async () => {
  const sealed = BY_PYTHON[0][1];
  const [prefix, version, key, body] = sealed.split(":");
  const swapped = body[20] === "A" ? "B" : "A";
  const sealer = new Sealer([OLD, NEW]);
  for (const other of [
    `${body.slice(0, 20)}${swapped}${body.slice(21)}`,
    body.slice(0, -8),
    body.slice(0, -1),
    body.slice(0, 8),
    `${body}:`,
    ` ${body}`,
    "",
  ]) {
    await assert.rejects(sealer.open([prefix, version, key, other].join(":")), refused(), other);
  }
  await assert.rejects(sealer.open([prefix, version, "559b3eee", body].join(":")), refused());
  await assert.rejects(sealer.open([prefix, "2", key, body].join(":")), /newer durably_web/);
});
