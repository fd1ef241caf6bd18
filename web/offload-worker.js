/**
 * The worker of offloaded functions: Python without an engine and without a database, which makes one call after another.
 *
 * @module
 */

import { Downloads } from "./downloads.js";
import { failureOf } from "./failures.js";
import { holdLifeline } from "./leader.js";
import { watchNetwork } from "./network.js";
import { bootPython, startOffloaded } from "./python.js";

/** @typedef {import("./offload.js").FromOffload} FromOffload */
/** @typedef {import("./offload.js").ToOffload} ToOffload */

/** @type {((call: Uint8Array[]) => Promise<Uint8Array[]>) | undefined} */
let answer;

/**
 * @param {FromOffload} message
 * @param {Transferable[]} [transfer]
 */
function tell(message, transfer = []) {
  postMessage(message, { transfer });
}

/** @param {Extract<ToOffload, {type: "boot"}>} message */
async function boot({ options, parts }) {
  tell({ type: "hello", lifeline: await holdLifeline() });
  // When Python is beyond repair, this worker is gone with it: its lifeline says so.
  const pyodide = await bootPython(options, new Downloads(options, () => {}, { parts }), () => {}, () => close());
  answer = startOffloaded(pyodide, parts.sources);
  tell({ type: "ready" });
}

/** @param {Uint8Array[]} call */
async function run(call) {
  if (answer === undefined) throw new Error("the worker has not started");
  const parts = await answer(call);
  tell({ type: "answer", parts }, parts.map((part) => part.buffer));
}

watchNetwork();
addEventListener("message", ({ data }) => {
  const message = /** @type {ToOffload} */ (data);
  const work = message.type === "boot" ? boot(message) : run(message.parts);
  work.catch((error) => tell({ type: "failed", error: failureOf(error) }));
});
