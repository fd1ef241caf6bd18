// Wheels that Python asks for late: with a server and a file system of the test's own.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { beforeEach, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

const { Wheels } = await import("../../web/wheels.js");

const RUNTIME = "https://site.example/app/durably-web/";
const CONTENT = "what the wheel is";
const integrity = `sha384-${createHash("sha384").update(CONTENT).digest("base64")}`;
const manifest = /** @type {any} */ ({
  cronsim: "wheels/cronsim-2.8-py3-none-any.whl",
  tzdata: "wheels/tzdata-2026.6-py3-none-any.whl",
  files: { "wheels/cronsim-2.8-py3-none-any.whl": { bytes: CONTENT.length, integrity } },
});

/** @type {string[]} */
let asked = [];
/** @type {(cache?: RequestCache) => Response | Promise<Response>} */
let answer;
/** @type {[string, string][]} */
let written = [];
/** @type {InstanceType<typeof Wheels>} */
let wheels;

globalThis.fetch = async (url, { cache } = {}) => {
  asked.push(`${url} ${cache}`);
  return answer(cache);
};

beforeEach(() => {
  [asked, written] = [[], []];
  answer = () => new Response(CONTENT);
  const FS = { writeFile: (/** @type {string} */ path, /** @type {any} */ bytes) => void written.push([path, new TextDecoder().decode(bytes)]) };
  wheels = new Wheels({ FS }, Promise.resolve(manifest), RUNTIME);
});

test("nothing is fetched before somebody asks, and then once", async () => {
  assert.deepEqual(asked, []);
  const paths = await Promise.all([wheels.load("cronsim"), wheels.load("cronsim")]);
  assert.deepEqual([...paths, await wheels.load("cronsim")], Array(3).fill("/lib/cronsim.whl"));
  assert.deepEqual(asked, [`${RUNTIME}wheels/cronsim-2.8-py3-none-any.whl force-cache`]);
  assert.deepEqual(written, [["/lib/cronsim.whl", CONTENT]]);
});

test("what is in the cache and wrong is fetched anew", async () => {
  answer = (cache) => new Response(cache === "reload" ? CONTENT : "an older one");
  await wheels.load("cronsim");
  assert.deepEqual(written, [["/lib/cronsim.whl", CONTENT]]);
  assert.equal(asked.length, 2);
});

test("a failure says which file and why, and the next one who asks tries again", async () => {
  answer = () => {
    throw new TypeError("Failed to fetch");
  };
  await assert.rejects(wheels.load("cronsim"), {
    name: "RequirementFailed",
    message: `cronsim could not be loaded: the wheel ${RUNTIME}wheels/cronsim-2.8-py3-none-any.whl could not be fetched: Failed to fetch`,
  });
  answer = () => new Response("another file");
  await assert.rejects(wheels.load("cronsim"), { name: "RequirementFailed", message: /is not the file that the manifest describes/ });
  answer = () => new Response("gone", { status: 404 });
  await assert.rejects(wheels.load("cronsim"), { name: "RequirementFailed", message: /the server answered 404/ });
  assert.deepEqual(written, []);
  answer = () => new Response(CONTENT);
  assert.equal(await wheels.load("cronsim"), "/lib/cronsim.whl");
});

test("what takes long holds nobody up, and is there for the next one who asks", async (context) => {
  /** @type {(response: Response) => void} */
  let send = () => {};
  answer = () => new Promise((resolve) => (send = resolve));
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const first = wheels.load("cronsim");
  await turn();
  context.mock.timers.tick(10_000);
  await assert.rejects(first, { name: "RequirementFailed", message: /cronsim is not loaded yet: the server has not sent https:/ });
  const second = wheels.load("cronsim");
  send(new Response(CONTENT));
  assert.equal(await second, "/lib/cronsim.whl");
  assert.equal(asked.length, 1);
});
