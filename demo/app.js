// The page: starts runs, follows them, and lists them. Everything it shows is read from the database in this browser.

import { createDurably } from "./durably-web/client.js";
import { allowApprovals, listenToApprovals, refreshApprovals } from "./approval.js";
import { clockTime, dayAndTime, element, part, plural } from "./elements.js";
import { reportView } from "./report.js";
import { STATUS_WORDS, drawRuns, nameOf } from "./runs.js";
import { airports, textOf } from "./source.js";

const JOB = "import_csv";
const MOST_RUNS = 20;
const MOST_LINES = 1000;

/** @type {Record<string, string>} */
const PHASES = {
  opening: "opening the database",
  python: "Python is starting",
  requirements: "installing packages",
  jobs: "loading the jobs",
};

/** @type {any} */
let durably;
/** @type {any[]} */
let runs = [];
/** @type {string | null} */
let shown = null;
/**
 * Lines that arrive while a stored log is being read; `null` at other times.
 *
 * @type {any[] | null}
 */
let early = null;
let ready = false;
let writable = false;

// State

/**
 * @param {string} status
 * @param {{phase?: string, loaded?: number, total?: number, error?: Error}} [detail]
 */
function showStatus(status, { phase = "", loaded = 0, total = 0, readOnly, error } = {}) {
  /** @type {Record<string, string>} */
  const words = {
    starting: PHASES[phase] ?? "starting",
    leader: PHASES[phase] ?? "this tab runs the jobs",
    follower: "another tab runs the jobs",
    closed: "closed",
    failed: "not working",
  };
  part("status").dataset.state = status === "leader" && phase in PHASES ? "starting" : status;
  part("status").textContent = readOnly === undefined ? (words[status] ?? status) : "this tab only reads";
  // Bytes of what a first visit downloads. There is nothing to wait for when all of it comes from the cache.
  const waiting = total > loaded;
  Object.assign(/** @type {HTMLProgressElement} */ (part("loading")), { value: loaded, max: total || 1, hidden: !waiting });
  Object.assign(document.documentElement.dataset, { status, phase });
  if (status === "failed") notice(error?.message ?? "Something went wrong.", "failed");
  else if (error) notice(`${error.message}. It is being started again, and the runs go on.`);
  else if (readOnly !== undefined) notice(`A newer version of this page has the runs now: reload. (${readOnly})`, "failed");
  else if (status !== "starting") notice(null);
  const before = ready;
  // What is asked for is stored from here on, whether Python is up or not, and whichever tab it runs in.
  ready = status === "leader" || status === "follower";
  writable = ready && readOnly === undefined;
  allow();
  if (ready && !before && durably) refresh().catch(complain);
}

function allow() {
  /** @type {HTMLButtonElement} */ (part("start")).disabled = !writable;
  allowApprovals(writable);
  draw();
}

function draw() {
  drawRuns(runs, shown, writable, (act, id) => perform(act, id).catch(complain));
}

/**
 * @param {string | null} text
 * @param {string} [kind]
 */
function notice(text, kind = "") {
  part("notice").hidden = !text;
  part("notice").dataset.kind = kind;
  part("notice").textContent = text;
}

/** @param {any} error */
function complain(error) {
  const text = error?.message || String(error);
  part("form-error").textContent = text;
  part("form-error").hidden = false;
}

// Runs

async function refresh() {
  await refreshApprovals();
  runs = await durably.getRuns({ jobName: JOB, limit: MOST_RUNS });
  draw();
  const unfinished = runs.find((run) => run.isActive);
  const current = runs.find((run) => run.id === shown) ?? unfinished ?? runs[0];
  if (current) await show(current.id);
  document.documentElement.dataset.listed = "true";
}

/**
 * Read one run again, and draw it wherever it is shown.
 *
 * @param {string} id
 */
async function update(id) {
  const run = await durably.getRun(id);
  const at = runs.findIndex((known) => known.id === id);
  if (!run) runs = runs.filter((known) => known.id !== id);
  else if (at < 0) runs = [run, ...runs].slice(0, MOST_RUNS);
  else runs[at] = run;
  draw();
  if (id === shown) run ? drawRun(run) : hideRun();
}

/** @param {string} id */
async function show(id) {
  shown = id;
  early = [];
  const run = await durably.getRun(id);
  if (shown !== id) return;
  if (!run) return hideRun();
  part("log").replaceChildren();
  drawRun(run);
  draw();
  showLog(id).catch(complain);
}

/**
 * Before Python is up this takes a while; the run is shown meanwhile.
 *
 * @param {string} id
 */
async function showLog(id) {
  const lines = await durably.getLogs(id);
  if (shown !== id) return;
  const known = new Set(lines.map(lineKey));
  const late = (early ?? []).filter((line) => !known.has(lineKey(line)));
  early = null;
  part("log").replaceChildren(...[...lines, ...late].slice(-MOST_LINES).map(logLine));
  scrollLog();
}

function hideRun() {
  shown = null;
  part("run").hidden = true;
}

/** @param {any} run */
function drawRun(run) {
  part("run").hidden = false;
  part("run").dataset.run = run.id;
  part("run").dataset.status = run.status;
  part("run-title").textContent = nameOf(run);
  part("run-status").textContent = STATUS_WORDS[run.status] ?? run.status;
  part("run-status").dataset.state = run.status;
  part("run-facts").textContent = facts(run);
  drawProgress(run);
  part("hint").hidden = !run.isActive;
  part("run-error").hidden = !run.error;
  part("run-error").textContent = run.error;
  const done = run.status === "completed" && run.output;
  part("report").hidden = !done;
  part("report").replaceChildren(...(done ? reportView(run.output) : []));
}

/** @param {any} run */
function facts(run) {
  const told = [`started ${dayAndTime(run.startedAt ?? run.createdAt)}`];
  if (run.completedAt && run.startedAt) {
    const seconds = (Date.parse(run.completedAt) - Date.parse(run.startedAt)) / 1000;
    told.push(`took ${seconds.toFixed(seconds < 10 ? 1 : 0)} s`);
  }
  if (run.isTerminal) told.push(`${plural(run.stepCount, "step")} stored`);
  return told.join(" · ");
}

/** @param {any} run */
function drawProgress(run) {
  const bar = /** @type {HTMLProgressElement} */ (part("bar"));
  const done = run.status === "completed";
  bar.max = run.progress?.total || 1;
  bar.value = done ? bar.max : (run.progress?.current ?? 0);
  part("bar-text").textContent = done ? "done" : (run.progress?.message ?? "");
  part("run").dataset.current = String(run.progress?.current ?? 0);
}

/** @param {any} line */
const lineKey = (line) => `${line.createdAt ?? line.timestamp} ${line.stepName ?? ""} ${line.message}`;

/** @param {any} line */
function logLine(line) {
  return element(
    "li",
    { "data-level": line.level },
    element("time", {}, clockTime(line.createdAt ?? line.timestamp)),
    element("span", {}, line.message),
  );
}

function scrollLog() {
  const log = part("log");
  while (log.children.length > MOST_LINES) log.firstElementChild?.remove();
  log.scrollTop = log.scrollHeight;
}

// Asking

/**
 * @param {import("./runs.js").Act} act
 * @param {string} id
 */
async function perform(act, id) {
  part("form-error").hidden = true;
  if (act === "show") {
    await show(id);
    part("run").scrollIntoView({ block: "nearest" });
    return;
  }
  if (act === "cancel") await durably.cancel(id);
  if (act === "retry") await durably.retry(id);
  if (act === "delete") {
    await durably.deleteRun(id);
    await forgetChunks(id);
  }
  await update(id);
  if (act === "retry") await show(id);
}

/**
 * The chunks of a run are files beside the engine's database (`BrowserFolder` in jobs.py): they go with their run.
 *
 * @param {string} id
 */
async function forgetChunks(id) {
  try {
    const root = await navigator.storage.getDirectory();
    await (await root.getDirectoryHandle("imports")).removeEntry(id, { recursive: true });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "NotFoundError")) throw error;
  }
}

async function start() {
  part("form-error").hidden = true;
  const chosen = new FormData(/** @type {HTMLFormElement} */ (part("import"))).get("source");
  const file = chosen === "file" ? /** @type {HTMLInputElement} */ (part("file")).files?.[0] : null;
  if (file === undefined) throw new Error("Pick a CSV file first.");
  const name = file ? file.name : "airports.csv";
  const text = file ? await textOf(file) : await airports();
  const pause = Number(/** @type {HTMLSelectElement} */ (part("pause")).value);
  const run = await durably.trigger(JOB, { text, file_name: name, pause }, { labels: { file: name } });
  await update(run.id);
  await show(run.id);
}

/** @param {any} event */
function hear(event) {
  // A run that was deleted has no job any more.
  if (event.jobName !== JOB && event.type !== "run:delete") return;
  const run = runs.find((known) => known.id === event.runId);
  if (event.type === "log:write" && event.runId === shown) {
    if (early) early.push(event);
    else {
      part("log").append(logLine(event));
      scrollLog();
    }
  } else if (event.type === "run:progress" && run) {
    run.progress = event.progress;
    draw();
    if (run.id === shown) drawProgress(run);
  } else if (["run:trigger", "run:leased", "run:complete", "run:fail", "run:cancel", "run:delete"].includes(event.type)) {
    update(event.runId).catch(complain);
  }
}

const EVENTS = ["log:write", "run:progress", "run:trigger", "run:leased", "run:complete", "run:fail", "run:cancel", "run:delete"];

function listenToForm() {
  const file = /** @type {HTMLInputElement} */ (part("file"));
  const choose = () => {
    part("file-name").textContent = file.files?.[0]?.name ?? "A file of yours";
    /** @type {HTMLInputElement} */ (document.querySelector("[value=file]")).checked = true;
    part("form-error").hidden = true;
  };
  file.addEventListener("change", choose);
  const drop = part("drop");
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer?.files.length) {
      file.files = event.dataTransfer.files;
      choose();
    }
  });
  part("import").addEventListener("submit", (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (part("start"));
    button.disabled = true;
    start()
      .catch(complain)
      .finally(() => (button.disabled = !writable));
  });
}

listenToForm();
showStatus("starting");
try {
  durably = await createDurably({ jobs: ["./jobs.py", "./approval.py"], database: "demo", onStatus: showStatus });
  for (const type of EVENTS) durably.on(type, hear);
  listenToApprovals(durably);
  // For who opens the console: `await durably.getRuns()`.
  Object.assign(globalThis, { durably });
  if (ready) await refresh();
} catch (error) {
  showStatus("failed", { error: error instanceof Error ? error : new Error(String(error)) });
}
