// Listening to events over connections that break: against a journal and a link that the test makes.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { DurablyError } from "../../web/failures.js";
import { Hearing } from "../../web/hearing.js";

const TYPES = ["run:trigger", "step:complete", "run:complete"];

beforeEach(() => mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 }));
afterEach(() => mock.timers.reset());

/** Numbers below `below` that look random, the same for the same seed (xorshift). */
function chance(seed) {
  let state = (seed + 1) * 2654435761 || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** A journal, and one connection to who writes it, which can be broken. */
class World {
  journal = [];
  /** What was sent over the connection and has not arrived. */
  underway = [];
  questions = [];
  isConnected = false;

  constructor(ownClock) {
    this.hearing = new Hearing({
      ownClock,
      onTypes: () => {},
      request: (method, path, query) =>
        new Promise((resolve, reject) => this.questions.push({ line: `${method} ${path}`, query, resolve, reject })),
    });
  }

  get last() {
    return this.journal.at(-1)?.seq ?? 0;
  }

  write(type, seq = this.last + 1) {
    const event = { type, seq, timestamp: new Date().toISOString(), runId: "r" };
    this.journal.push(event);
    if (this.isConnected) this.underway.push(event);
    return event;
  }

  /** As a link does it: only what somebody listens to comes over. */
  arrive(at = 0) {
    const [event] = this.underway.splice(at, 1);
    if (event && this.hearing.types.some((type) => [event.type, "*"].includes(type))) this.hearing.hear(event);
  }

  connect(fresh) {
    this.isConnected = true;
    this.hearing.connected(this.last, fresh);
  }

  disconnect() {
    this.isConnected = false;
    this.underway = [];
  }

  async answer() {
    const question = this.questions.shift();
    assert.equal(question.line, "GET /events");
    const { after, limit } = question.query;
    const events = this.journal.filter(({ seq }) => seq > Number(after)).slice(0, Number(limit));
    const next = events.length === Number(limit) ? events.at(-1).seq : null;
    question.resolve({ events, ended: false, next });
    await turn();
  }

  async answerAll() {
    await turn();
    while (this.questions.length > 0) await this.answer();
  }
}

const seqs = (events) => events.map(({ seq }) => seq);

function collect(hearing, type) {
  const heard = [];
  hearing.on(type, (event) => heard.push(event));
  return heard;
}

test("what happened without a connection is told first, and then what came meanwhile", async () => {
  const world = new World(true);
  world.connect();
  const heard = collect(world.hearing, "*");
  world.write("run:trigger");
  world.arrive();
  world.disconnect();
  world.write("step:complete");
  world.connect();
  world.hearing.hear(world.write("run:complete"));
  world.hearing.hear({ type: "step:start", seq: null, runId: "r" });
  assert.deepEqual(seqs(heard), [1]);
  await world.answerAll();
  assert.deepEqual(seqs(heard), [1, 2, 3, null]);
});

test("a page without any event that may be seen is not the last", async () => {
  const world = new World(true);
  world.connect();
  const heard = collect(world.hearing, "*");
  world.disconnect();
  const event = world.write("run:complete", 9000);
  world.connect();
  await turn();
  world.questions.shift().resolve({ events: [], ended: false, next: 8000 });
  await turn();
  assert.equal(world.questions[0].query.after, "8000");
  await world.answerAll();
  assert.deepEqual(heard, [event]);
});

for (const ownClock of [true, false]) {
  const where = ownClock ? "in a page, where what nobody listens to stays unknown" : "from a server, which sends everything";

  test(`whatever breaks when, everybody hears each stored event once and in order: ${where}`, async () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = chance(seed);
      const world = new World(ownClock);
      // A server's stream brings all events, whoever listens.
      if (!ownClock) world.arrive = () => world.underway.length > 0 && world.hearing.hear(world.underway.shift());
      world.connect();
      const listeners = [];
      for (let step = 0; step < 400; step++) {
        mock.timers.tick(1);
        const dice = random(100);
        if (dice < 50) world.write(TYPES[random(TYPES.length)]);
        else if (dice < 80) world.arrive();
        else if (dice < 85 && world.isConnected) world.disconnect();
        else if (dice < 92 && !world.isConnected) world.connect();
        else if (dice < 96 && world.questions.length > 0) await world.answer();
        else if (dice < 98 && world.questions.length > 0) {
          const { reject } = world.questions.shift();
          reject(new DurablyError(["TimeoutError", "StoreUnavailable"][random(2)], "later"));
          await turn();
          mock.timers.tick(1_000);
          await turn();
        } else if (listeners.length < 4 && world.isConnected) {
          // What is on its way just now may be heard or not: nobody could say when it happened.
          while (world.underway.length > 0) world.arrive();
          await world.answerAll();
          const type = [...TYPES, "*"][random(4)];
          mock.timers.tick(1);
          listeners.push({ type, from: world.last, heard: collect(world.hearing, type) });
        }
      }
      if (!world.isConnected) world.connect();
      await turn();
      mock.timers.tick(1_000);
      await world.answerAll();
      while (world.underway.length > 0) world.arrive();
      for (const { type, from, heard } of listeners) {
        const expected = world.journal.filter((event) => event.seq > from && [event.type, "*"].includes(type));
        assert.deepEqual(seqs(heard), seqs(expected), `seed ${seed}, ${type} from ${from}`);
      }
    }
  });
}

test("live events out of order are neither lost nor doubled, also by a connection that breaks among them", async () => {
  for (let seed = 0; seed < 60; seed++) {
    const random = chance(seed);
    const world = new World(true);
    world.connect();
    const heard = collect(world.hearing, "*");
    mock.timers.tick(1);
    for (let step = 0; step < 1_500; step++) {
      const dice = random(100);
      if (dice < 48) world.write(TYPES[random(3)]);
      else if (dice < 97) world.arrive(random(Math.min(world.underway.length, 8) || 1));
      else if (world.isConnected) world.disconnect();
      else world.connect();
      if (random(4) === 0 && world.questions.length > 0) await world.answer();
    }
    if (!world.isConnected) world.connect();
    await world.answerAll();
    while (world.underway.length > 0) world.arrive();
    assert.deepEqual(seqs(heard).toSorted((a, b) => a - b), seqs(world.journal), `seed ${seed}`);
  }
});

test("a long gap is read in pages, and read on where it broke off", async () => {
  const world = new World(true);
  world.connect();
  const heard = collect(world.hearing, "run:trigger");
  world.disconnect();
  for (let number = 0; number < 500; number++) world.write("run:trigger");
  world.connect();
  await turn();
  await world.answer();
  assert.equal(heard.length, 200);
  world.disconnect();
  world.questions.shift().reject(new DurablyError("StoreUnavailable", "gone"));
  world.connect();
  await turn();
  assert.equal(world.questions[0].query.after, "200");
  await world.answerAll();
  assert.deepEqual(seqs(heard), seqs(world.journal));
});

test("who listens after the start is not told of what was before", async () => {
  const world = new World(true);
  world.connect();
  // Nobody listens to these, so nobody here knows how far the journal is.
  for (let number = 0; number < 5; number++) world.write("run:trigger");
  world.underway = [];
  mock.timers.tick(1);
  const heard = collect(world.hearing, "run:trigger");
  world.disconnect();
  world.write("run:trigger");
  world.connect();
  await world.answerAll();
  assert.deepEqual(seqs(heard), [6]);
});

test("who begins to listen while others are told of the past is not told of it", async () => {
  const world = new World(false);
  world.connect();
  const early = collect(world.hearing, "*");
  world.disconnect();
  world.write("run:trigger");
  world.connect();
  const late = collect(world.hearing, "*");
  await world.answerAll();
  world.write("run:complete");
  world.arrive();
  assert.deepEqual([seqs(early), seqs(late)], [[1, 2], [2]]);
});

test("what comes twice is told once", () => {
  const world = new World(true);
  world.connect();
  const heard = collect(world.hearing, "*");
  const event = world.write("run:trigger");
  world.arrive();
  world.hearing.hear(event);
  assert.deepEqual(seqs(heard), [1]);
});

test("a fresh connection has nothing to make up for, and neither has another database", async () => {
  const world = new World(false);
  world.connect(true);
  const heard = collect(world.hearing, "*");
  world.write("run:trigger");
  world.arrive();
  world.disconnect();
  world.write("run:trigger");
  world.connect(true);
  assert.deepEqual(world.questions, []);
  world.disconnect();
  world.journal = [];
  world.connect();
  assert.deepEqual(world.questions, []);
  world.write("run:trigger");
  world.arrive();
  assert.deepEqual(seqs(heard), [1, 1]);
});

test("a journal that cannot be read is told, and live events go on", async (context) => {
  const told = context.mock.method(console, "error", () => {});
  const world = new World(true);
  world.connect();
  const heard = collect(world.hearing, "*");
  world.disconnect();
  world.connect();
  await turn();
  world.questions.shift().reject(new DurablyError("NotFound", "there is no GET /events"));
  world.write("run:trigger");
  world.arrive();
  await turn();
  assert.equal(told.mock.callCount(), 1);
  assert.deepEqual(seqs(heard), [1]);
});

test("a listener that raises, leaves, or brings another one along, harms nobody", async (context) => {
  context.mock.method(console, "error", () => {});
  const { hearing } = new World(true);
  const heard = [];
  hearing.on("run:pause", () => {
    throw new Error("mine");
  });
  const stop = hearing.on("run:pause", () => {
    stop();
    heard.push("once");
    hearing.on("run:pause", () => heard.push("new"));
  });
  hearing.on("*", ({ type }) => heard.push(type));
  hearing.hear({ type: "run:pause", seq: null });
  hearing.hear({ type: "run:pause", seq: null });
  stop();
  assert.deepEqual(heard, ["once", "run:pause", "new", "run:pause"]);
});

test("a type that there is not, and a listener that is none, are refused", () => {
  const { hearing } = new World(true);
  assert.throws(() => hearing.on("run:progres", () => {}), { name: "InvalidInput", message: /there is no event "run:progres"/ });
  assert.throws(() => hearing.on("run:progress", null), { name: "InvalidInput", message: /is a function/ });
  assert.deepEqual(hearing.types, []);
});

test("after the end nothing is asked or told", async () => {
  const world = new World(true);
  world.connect();
  const heard = collect(world.hearing, "*");
  world.disconnect();
  world.write("run:trigger");
  world.connect();
  await turn();
  world.hearing.close();
  world.questions.shift().reject(new DurablyError("StoreUnavailable", "this client was closed"));
  await turn();
  mock.timers.tick(10_000);
  await turn();
  assert.deepEqual([world.questions, heard], [[], []]);
});
