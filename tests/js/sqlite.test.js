import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { connect, read, write } from "./sqlite_in_node.js";

/** @type {import("../../web/sqlite.js").Connection} */
let connection;

beforeEach((context) => {
  connection = connect();
  context.after?.(() => connection.close());
  write(connection, ["CREATE TABLE item (id INTEGER PRIMARY KEY, value)", []]);
});

function count() {
  return read(connection, ["SELECT count(*) FROM item", []]).rows[0][0][0];
}

test("a batch gives the rows of each statement, in order", () => {
  const reply = write(
    connection,
    ["INSERT INTO item VALUES (1, 'a'), (2, 'b')", []],
    ["SELECT id, value FROM item ORDER BY id", []],
    ["DELETE FROM item WHERE id = ? RETURNING value", [1]],
  );
  assert.deepEqual(reply, { rows: [[], [[1, "a"], [2, "b"]], [["a"]]] });
});

test("an empty batch is nothing", () => {
  assert.deepEqual(write(connection), { rows: [] });
});

test("values come back as they went in", () => {
  const values = [null, "", "text", "a\0b", "\ufeffmark", "😀", 0, -1, 9007199254740991, { f: 1 }, { f: -0.5 }, { f: 1e300 },
    { i: "9007199254740993" }, { i: "-9223372036854775808" }, { b: "" }, { b: "AAH/" }];
  for (const value of values) {
    const reply = write(connection, ["INSERT INTO item (value) VALUES (?) RETURNING value", [value]]);
    assert.deepEqual(reply, { rows: [[[value]]] });
  }
});

test("a whole float is stored as a float, and an integer as an integer", () => {
  const reply = read(connection, ["SELECT typeof(?), typeof(?)", [{ f: 1 }, 1]]);
  assert.deepEqual(reply.rows, [[["real", "integer"]]]);
});

test("a batch that fails at any statement leaves nothing, and says where it failed", () => {
  for (const index of [0, 1, 2]) {
    const statements = [1, 2, 3].map((id) => ["INSERT INTO item (id) VALUES (?)", [id]]);
    statements[index] = ["INSERT INTO nowhere VALUES (1)", []];
    const { error } = write(connection, ...statements);
    assert.equal(error.code, "SQLITE_ERROR");
    assert.equal(error.message, "no such table: nowhere");
    assert.equal(error.index, index);
    assert.equal(count(), 0);
  }
});

test("a broken constraint is named, and the batch is undone", () => {
  const { error } = write(connection, ["INSERT INTO item (id) VALUES (1)", []], ["INSERT INTO item (id) VALUES (1)", []]);
  assert.deepEqual(error, {
    code: "SQLITE_CONSTRAINT_PRIMARYKEY",
    message: "UNIQUE constraint failed: item.id",
    index: 1,
  });
  assert.equal(count(), 0);
});

test("a value that cannot cross undoes the batch", () => {
  const { error } = write(connection, ["INSERT INTO item (id) VALUES (1)", []], ["INSERT INTO item (id) VALUES (?)", [true]]);
  assert.equal(error.code, "INVALID_VALUE");
  assert.equal(error.index, 1);
  assert.equal(count(), 0);
});

test("the number of parameters must fit", () => {
  assert.equal(write(connection, ["INSERT INTO item (id) VALUES (?)", []]).error.code, "SQLITE_RANGE");
  assert.equal(write(connection, ["INSERT INTO item (id) VALUES (?)", [1, 2]]).error.code, "SQLITE_RANGE");
});

test("two statements in one text are refused, and none is executed", () => {
  const { error } = write(connection, ["INSERT INTO item (id) VALUES (1); INSERT INTO item (id) VALUES (2)", []]);
  assert.equal(error.code, "SQLITE_MISUSE");
  assert.equal(count(), 0);
  assert.deepEqual(write(connection, ["INSERT INTO item (id) VALUES (1); ", []]), { rows: [[]] });
});

test("what is not a batch is an error, not an exception", () => {
  assert.equal(JSON.parse(connection.runBatch("not JSON")).error.code, "INVALID_VALUE");
});

test("the connection works after an error", () => {
  write(connection, ["INSERT INTO nowhere VALUES (1)", []], ["SELECT 1", []]);
  assert.deepEqual(write(connection, ["INSERT INTO item (id) VALUES (1)", []], ["SELECT 1", []]), { rows: [[], [[1]]] });
});

test("parameters of one call do not leak into the next", () => {
  write(connection, ["INSERT INTO item (id, value) VALUES (?, ?)", [1, "secret"]]);
  assert.equal(write(connection, ["INSERT INTO item (id, value) VALUES (?, ?)", [2]]).error.code, "SQLITE_RANGE");
  assert.deepEqual(read(connection, ["SELECT id FROM item", []]).rows, [[[1]]]);
});

test("statements stay prepared, and not without end", () => {
  const before = connection.prepared;
  for (let round = 0; round < 3; round++) read(connection, ["SELECT 'the same'", []]);
  assert.equal(connection.prepared, before + 1);
  for (let number = 0; number < 1000; number++) read(connection, [`SELECT ${number}`, []]);
  assert.ok(connection.prepared < 200);
  assert.deepEqual(read(connection, ["SELECT 'the same'", []]).rows, [[["the same"]]]);
});

test("a prepared statement survives a change of the schema", () => {
  read(connection, ["SELECT * FROM item", []]);
  write(connection, ["INSERT INTO item VALUES (1, 'a')", []], ["ALTER TABLE item ADD COLUMN more DEFAULT 'm'", []]);
  assert.deepEqual(read(connection, ["SELECT * FROM item", []]).rows, [[[1, "a", "m"]]]);
});

test("closing twice is harmless", () => {
  connection.close();
  connection.close();
});
