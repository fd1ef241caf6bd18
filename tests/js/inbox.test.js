import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Inbox } from "../../web/inbox.js";
import { Sealer } from "../../web/sealing.js";
import { connect, read, write } from "./sqlite_in_node.js";

const KEY = new Uint8Array(32).fill(1);
const [A, B, C] = ["01HF7YAT00FBCB54955HDWHY7C", "01HF7YAT00AAAAAAAAAAAAAAAA", "01HF7YAT00ZZZZZZZZZZZZZZZZ"];

/** @type {import("../../web/sqlite.js").Connection} */
let connection;

beforeEach((context) => {
  connection = connect();
  context.after?.(() => connection.close());
});

/** @param {Uint8Array[]} keys */
function opened(...keys) {
  return new Inbox(connection, new Sealer(keys));
}

/** @param {Inbox} inbox */
async function listed(inbox) {
  return [...(await inbox.list()).values()].map(({ id, request, receivedAt }) => [id, request, receivedAt]);
}

function tables() {
  return read(connection, ["SELECT name FROM sqlite_master WHERE type = 'table'", []]).rows[0].flat();
}

test("the table comes with the first request, and not before", async () => {
  const inbox = opened();
  assert.deepEqual(await listed(inbox), []);
  assert.deepEqual(tables(), []);
  await inbox.add(A, "{}", 5);
  assert.deepEqual(tables(), ["durably_inbox"]);
});

test("requests are kept in the order in which they came, also for the next one who looks", async () => {
  const inbox = opened();
  await inbox.add(A, '"a"', 30);
  await inbox.add(B, '"b\\u0000ü"', 20);
  await inbox.add(C, '"c"', 10);
  const expected = [[A, '"a"', 30], [B, '"b\\u0000ü"', 20], [C, '"c"', 10]];
  assert.deepEqual(await listed(inbox), expected);
  assert.deepEqual(await listed(opened()), expected);
});

test("an id that is there changes nothing", async () => {
  const inbox = opened();
  await inbox.add(A, "1", 1);
  await inbox.add(A, "2", 2);
  await opened().add(A, "3", 3);
  assert.deepEqual(await listed(inbox), [[A, "1", 1]]);
  assert.deepEqual(await listed(opened()), [[A, "1", 1]]);
});

test("what is removed is gone, and removing it again does no harm", async () => {
  const inbox = opened();
  await inbox.add(A, "1", 1);
  await inbox.add(B, "2", 2);
  const [first] = (await inbox.list()).values();
  await inbox.remove(first);
  await inbox.remove(first);
  assert.deepEqual(await listed(inbox), [[B, "2", 2]]);
  assert.deepEqual(await listed(opened()), [[B, "2", 2]]);
  await inbox.add(C, "3", 3);
  assert.deepEqual(await listed(opened()), [[B, "2", 2], [C, "3", 3]]);
});

test("with a key nothing of a request can be seen, but its id and when it came", async () => {
  await opened(KEY).add(A, '{"canary":1}', 5);
  const { rows } = read(connection, ["SELECT * FROM durably_inbox", []]);
  assert.deepEqual([rows[0][0][0], rows[0][0][1], rows[0][0][3]], [1, A, 5]);
  assert.match(rows[0][0][2], /^sealed:1:5a991f1c:/);
  assert.deepEqual(await listed(opened(KEY)), [[A, '{"canary":1}', 5]]);
  assert.deepEqual(await listed(opened(new Uint8Array(32), KEY)), [[A, '{"canary":1}', 5]]);
  await assert.rejects(opened().list(), { name: "DecryptionFailed" });
  await assert.rejects(opened().add(B, "{}", 6), { name: "DecryptionFailed" });
  assert.equal(read(connection, ["SELECT count(*) FROM durably_inbox", []]).rows[0][0][0], 1);
});

test("what was stored before there was a key is read beside what is sealed", async () => {
  await opened().add(A, "1", 1);
  await opened(KEY).add(B, "2", 2);
  assert.deepEqual(await listed(opened(KEY)), [[A, "1", 1], [B, "2", 2]]);
});

test("without room nothing is stored; with it the same request is", async () => {
  const inbox = opened();
  const { rows } = read(connection, ["PRAGMA max_page_count = 4", []]);
  assert.equal(rows[0][0][0], 4);
  await assert.rejects(inbox.add(A, JSON.stringify("x".repeat(100_000)), 1), { name: "StorageFull", message: /^SQLITE_FULL: / });
  assert.deepEqual(tables(), []);
  assert.deepEqual(await listed(inbox), []);
  read(connection, ["PRAGMA max_page_count = 1000", []]);
  await inbox.add(A, JSON.stringify("x".repeat(100_000)), 1);
  assert.equal((await listed(opened())).length, 1);
});

test("whatever else the database says is StoreUnavailable, and is tried again", async () => {
  const inbox = opened();
  write(connection, ["CREATE TABLE durably_inbox (number INTEGER PRIMARY KEY)", []]);
  await assert.rejects(inbox.add(A, "{}", 1), { name: "StoreUnavailable", message: /no such column/ });
  await assert.rejects(inbox.list(), { name: "StoreUnavailable" });
  write(connection, ["DROP TABLE durably_inbox", []]);
  await inbox.add(A, "{}", 1);
  assert.deepEqual(await listed(inbox), [[A, "{}", 1]]);
});
