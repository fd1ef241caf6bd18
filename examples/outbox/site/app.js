import { createDurably } from "./durably-web/client.js";
import { change, clear, draft, scaled } from "./draft.js";

const $ = (id) => document.getElementById(id);
const ENDPOINT = "outbox-example-endpoint";
const HERE = ["localhost", "127.0.0.1"].includes(location.hostname) ? "http://127.0.0.1:8001/reports" : "";

// Resolves when the outbox can take reports: before Python is up.
const opening = createDurably({ jobs: "./jobs.py", database: "outbox", onStatus: (status, { error }) => error && complain(error) });

/** What a report waits for: `"network"`, or the error of the last attempt. Only the first one in the outbox has been tried. */
const reasons = new Map();

function complain(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

/** An element. Text is only ever set as text, so that nothing in a report becomes markup. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// The form

/** Put the report into the outbox. It is stored when `trigger` resolves; asked again with the same name it is the same report. */
async function save() {
  $("problem").hidden = true;
  const { id, ...content } = draft;
  const report = { ...content, endpoint: $("endpoint").value, written: new Date().toISOString() };
  const durably = await opening;
  // One after the other, in the order in which they were saved.
  await durably.trigger("send_report", report, { idempotencyKey: id, concurrencyKey: "outbox", coalesce: "queue" });
  if (draft.id === id) clear(); // otherwise somebody has gone on writing
  fill();
  await refresh();
  $("saved").textContent = "Saved in the outbox.";
}

function fill() {
  $("what").value = draft.what;
  $("where").value = draft.where;
  $("photo").hidden = !draft.photo;
  $("photo").src = draft.photo ?? "data:,";
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  save().catch(complain);
});
for (const name of ["what", "where"]) {
  $(name).addEventListener("input", () => {
    change({ [name]: $(name).value });
    $("saved").textContent = "";
  });
}
$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  $("file").value = "";
  try {
    if (file) change({ photo: await scaled(file) });
    fill();
  } catch (error) {
    complain(error);
  }
});
$("endpoint").addEventListener("invalid", () => ($("settings").open = true));
$("endpoint").addEventListener("change", () => localStorage.setItem(ENDPOINT, $("endpoint").value));

// The outbox

async function refresh() {
  const durably = await opening;
  const runs = await durably.getRuns({ jobName: "send_report", limit: 100 });
  const focused = document.activeElement?.id;
  $("reports").replaceChildren(...runs.map((run) => line(durably, run)));
  $(focused)?.focus(); // the buttons are new ones
  const waiting = runs.filter(({ isActive }) => isActive).length;
  $("count").textContent = runs.length ? `${waiting} to be sent` : "empty";
  document.documentElement.dataset.waiting = waiting;
  lookUpReasons(runs).catch(complain);
}

function line(durably, run) {
  const { what, where, photo, written } = run.input;
  const button = (word, act) => {
    const made = element("button", { type: "button", id: `${word}-${run.id}`, "aria-label": `${word}: ${what.slice(0, 60)}` }, word);
    made.addEventListener("click", () => act().then(refresh).catch(complain));
    return made;
  };
  const acts = [];
  if (run.isActive) acts.push(button("Take back", () => durably.cancel(run.id)));
  if (isRefused(run)) acts.push(button("Edit", () => edit(durably, run)));
  // The same run, so the same key: if the server has the report already, it knows that.
  if (run.isTerminal && run.status !== "completed") acts.push(button("Send after all", () => durably.retry(run.id)));
  if (run.isTerminal) acts.push(button("Delete", () => durably.deleteRun(run.id)));
  const when = new Date(written).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return element("li", { "data-run": run.id, "data-status": run.status },
    ...(photo ? [element("img", { src: photo, alt: "" })] : []),
    element("span", { class: "what" }, element("b", {}, what), element("small", {}, [where, when].filter(Boolean).join(" · ")), ...reason(run)),
    element("span", { class: "badge", "data-state": run.status }, word(run)),
    ...acts);
}

function word(run) {
  switch (run.status) {
    case "pending": return "queued";
    case "leased": return "sending";
    case "waiting": return reasons.get(run.id) === "network" || !navigator.onLine ? "waits for the network" : "will be tried again";
    case "completed": return `sent, number ${run.output.number}`;
    case "failed": return isRefused(run) ? "refused" : "failed";
    default: return "taken back";
  }
}

/** The server has it, and will not take it: only then can it be changed without a doubt whether it has arrived. */
const isRefused = ({ status, error }) => status === "failed" && error.startsWith("Fatal: ");

function reason(run) {
  const error = run.status === "waiting" ? reasons.get(run.id) : run.error;
  return error && error !== "network" ? [element("small", { class: "bad" }, error.replace(/^\w+: /, ""))] : [];
}

/** After a reload: why the one that waits does. */
async function lookUpReasons(runs) {
  const durably = await opening;
  for (const { id } of runs.filter((run) => run.status === "waiting" && !reasons.has(run.id))) {
    reasons.set(id, ""); // it is asked for once
    const [step] = await durably.getSteps(id);
    if (step) reasons.set(id, step.waitsFor ?? step.error);
    await refresh();
  }
}

/** What the server has refused, as a new report. */
async function edit(durably, run) {
  const { what, where, photo } = run.input;
  change({ what, where, photo });
  await durably.deleteRun(run.id);
  fill();
  $("what").focus();
}

// Whether there is a network, and whether this page needs one

function showNetwork() {
  $("network").textContent = navigator.onLine ? "online" : "offline";
  $("network").dataset.state = navigator.onLine ? "completed" : "waiting";
  refresh().catch(complain);
}

function showKept() {
  $("kept").textContent = "This page works without a network.";
}

for (const type of ["online", "offline"]) addEventListener(type, showNetwork);
$("endpoint").value = localStorage.getItem(ENDPOINT) ?? HERE;
$("settings").open = !$("endpoint").value;
fill();
try {
  const durably = await opening;
  durably.on("site:stored", showKept);
  if (durably.site.stored) showKept();
  durably.on("step:wait", ({ runId, waitsFor }) => reasons.set(runId, waitsFor));
  durably.on("step:retry", ({ runId, error }) => reasons.set(runId, error));
  for (const type of ["run:trigger", "run:leased", "run:waiting", "run:complete", "run:fail", "run:cancel", "run:delete"]) {
    durably.on(type, () => refresh().catch(complain));
  }
  showNetwork();
  await refresh();
  document.documentElement.dataset.ready = "";
} catch (error) {
  complain(error);
}
