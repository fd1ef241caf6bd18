// Following events, against a worker's answers that the test decides: no browser, no Python.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

Promise.withResolvers ??= function () {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const { DurablyError } = await import("../../web/failures.js");
const { Following } = await import("../../web/following.js");

/** A following whose requests wait until the test answers them, in order. */
function world() {
  const asked = [];
  const state = { status: "leader", asked, typesChanged: 0 };
  state.following = new Following({
    request: (method, path, query) =>
      new Promise((resolve, reject) => asked.push({ line: `${method} ${path}`, query, resolve, reject })),
    status: () => state.status,
    onTypes: () => state.typesChanged++,
  });
  state.answer = async (events, ended = false, next = null) => {
    asked.shift().resolve({ events: events.map((seq) => ({ seq, type: "step:complete" })), ended, next });
    await turn();
  };
  return state;
}

/** Reads on in the background: what came so far, and the end. */
function collect(iterable) {
  const seen = [];
  const end = (async () => {
    for await (const { seq } of iterable) seen.push(seq);
  })();
  end.catch(() => {});
  return { seen, end };
}

test("stored events come in order, then pushes lead to further reads, and the run's end ends it", async () => {
  const { following, asked, answer } = world();
  const { seen, end } = collect(following.events("r", { after: 4 }));
  assert.deepEqual(asked[0].query, { after: "4", limit: "200", runId: "r" });
  await answer([5, 7]);
  assert.deepEqual(seen, [5, 7]);
  assert.equal(asked.length, 0);
  following.hear({ type: "journal", runId: "other", seq: 8 });
  following.hear({ type: "journal", runId: "r", seq: 7 });
  await turn();
  assert.equal(asked.length, 0);
  following.hear({ type: "journal", runId: "r", seq: 9 });
  await turn();
  assert.equal(asked[0].query.after, "7");
  await answer([9], true);
  await end;
  assert.deepEqual(seen, [5, 7, 9]);
});

test("what is pushed while a page is being read is not missed, and read once", async () => {
  const { following, asked, answer } = world();
  const { seen } = collect(following.events());
  following.hear({ type: "journal", runId: "r", seq: 3 });
  await answer([1, 2]);
  assert.equal(asked.length, 1);
  following.hear({ type: "journal", runId: "r", seq: 3 });
  await answer([3]);
  assert.equal(asked.length, 0);
  assert.deepEqual(seen, [1, 2, 3]);
});

test("a full page is followed by the next", async () => {
  const { following, asked, answer } = world();
  const { seen } = collect(following.events());
  await answer(Array.from({ length: 200 }, (_, at) => at + 1), false, 200);
  assert.equal(asked[0].query.after, "200");
  await answer([]);
  assert.equal(seen.length, 200);
  assert.equal(asked.length, 0);
});

test("the journal is heard only while somebody follows", async () => {
  const state = world();
  assert.ok(!state.following.types.includes("journal"));
  const events = state.following.events("r");
  assert.equal(state.typesChanged, 0);
  const first = events.next();
  assert.ok(state.following.types.includes("journal"));
  await state.answer([1]);
  assert.equal((await first).value.seq, 1);
  await events.return();
  assert.ok(!state.following.types.includes("journal"));
  assert.equal(state.typesChanged, 2);
});

test("a worker that is started again is asked again, behind what was seen", async () => {
  const state = world();
  const { seen, end } = collect(state.following.events("r"));
  await state.answer([1]);
  state.following.hear({ type: "journal", runId: "r", seq: 2 });
  await turn();
  state.status = "starting";
  state.asked.shift().reject(new DurablyError("StoreUnavailable", "it has ended"));
  await turn();
  assert.equal(state.asked.length, 0);
  state.status = "leader";
  state.following.lookAgain();
  await turn();
  assert.equal(state.asked[0].query.after, "1");
  await state.answer([2], true);
  await end;
  assert.deepEqual(seen, [1, 2]);
});

test("where there may be more, the next page is asked for at once, though this one is empty", async () => {
  const { following, asked, answer } = world();
  const { seen, end } = collect(following.events());
  await answer([], false, 700);
  assert.equal(asked[0].query.after, "700");
  await answer([701], false, 701);
  assert.equal(asked[0].query.after, "701");
  await answer([]);
  assert.equal(asked.length, 0);
  assert.deepEqual(seen, [701]);
  following.hear({ type: "journal", runId: "r", seq: 702 });
  await turn();
  await answer([702], true);
  await end;
});

test("a busy worker is asked again; any other refusal ends it", async () => {
  const { following, asked } = world();
  const { end } = collect(following.events("r"));
  asked.shift().reject(new DurablyError("TimeoutError", "no answer"));
  await turn();
  asked.shift().reject(new DurablyError("NotFound", "there is no run"));
  await assert.rejects(end, { name: "NotFound" });
});

test("waiting for a run outlasts sleeps, a new worker and a busy one", async () => {
  const state = world();
  const waiting = state.following.waitForRun("r");
  state.asked.shift().resolve({ id: "r", status: "waiting", isTerminal: false });
  await turn();
  state.following.lookAgain();
  await turn();
  state.asked.shift().reject(new DurablyError("TimeoutError", "no answer"));
  await turn();
  state.asked.shift().resolve({ id: "r", status: "completed", isTerminal: true });
  assert.equal((await waiting).status, "completed");
});

test("waiting ends at its time, and asks nothing afterwards", async () => {
  const { following, asked } = world();
  await assert.rejects(following.waitForRun("r", { timeout: 1 }), { name: "TimeoutError", message: /has not ended within 1 ms/ });
  asked.shift().resolve({ isTerminal: false });
  following.lookAgain();
  await turn();
  assert.equal(asked.length, 0);
});
