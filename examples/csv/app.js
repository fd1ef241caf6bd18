import { createDurably } from "./durably-web/client.js";
import { forget, keep } from "./files.js";
import { element, report } from "./report.js";

const $ = (id) => document.getElementById(id);
const WORDS = { pending: "waits", leased: "running", waiting: "waits", completed: "done", failed: "failed", cancelled: "stopped" };

let shown = null; // the id of the run on display

// Resolves before Python is up. Until then the page can be used: what is asked for waits for this.
const opening = createDurably({ jobs: ["./jobs.py", "./cleaning.py", "./files.py"], database: "csv", onStatus: showStatus });

/** How far the start is, and who runs the jobs. Requests are accepted by a leader and a follower, whether Python is up or not. */
function showStatus(status, { phase, error }) {
  const starting = status === "leader" && phase && phase !== "running";
  const words = { leader: starting ? "Python is starting" : "ready", follower: "ready, in another tab", starting: "starting" };
  $("status").textContent = words[status] ?? status;
  $("status").dataset.state = status;
  if (error) complain(error);
}

function complain(error) {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

/** Store the file, and ask for a run that knows its name. From then on the tab may go. */
async function start(blob, name) {
  $("problem").hidden = true;
  const durably = await opening;
  if (!blob.size) throw new Error(`${name} is empty.`);
  const file = await keep(blob);
  try {
    const pause = $("slow").checked ? 0.5 : 0;
    const run = await durably.trigger("clean_csv", { file, name, size: blob.size, pause }, { labels: { name: name.slice(0, 100) } });
    shown = run.id;
    await refresh();
  } catch (error) {
    await forget(file);
    throw error;
  }
}

// Showing

async function refresh() {
  const durably = await opening;
  const runs = await durably.getRuns({ jobName: "clean_csv", limit: 20 });
  $("none").hidden = runs.length > 0;
  const focused = document.activeElement?.id;
  $("runs").replaceChildren(...runs.map((run) => line(durably, run)));
  $(focused)?.focus(); // the buttons are new ones
  const run = runs.find(({ id }) => id === shown) ?? runs[0];
  $("shown").hidden = !run;
  if (run) show(run);
}

function line(durably, run) {
  const name = run.input.name;
  const button = (word, act) => {
    const made = element("button", { type: "button", id: `${word}-${run.id}`, "aria-label": `${word} ${name}` }, word);
    made.addEventListener("click", () => act().then(refresh).catch(complain));
    return made;
  };
  const acts = [button("Show", async () => { shown = run.id; })];
  if (run.isActive) acts.push(button("Stop", () => durably.cancel(run.id)));
  if (["failed", "cancelled"].includes(run.status)) acts.push(button("Go on", () => durably.retry(run.id)));
  if (run.isTerminal) acts.push(button("Delete", () => remove(durably, run)));
  const when = new Date(run.createdAt).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return element("li", { "data-run": run.id, "data-status": run.status },
    element("span", {}, element("b", {}, name), " ", element("small", {}, when)),
    element("span", { class: "badge", "data-state": run.status }, WORDS[run.status]),
    ...acts);
}

async function remove(durably, run) {
  await durably.deleteRun(run.id);
  await forget(run.input.file);
  await forget(`cleaned/${run.id}`);
}

function show(run) {
  shown = run.id;
  $("name").textContent = run.input.name;
  $("state").textContent = WORDS[run.status];
  $("state").dataset.state = run.status;
  $("shown").dataset.status = run.status;
  drawProgress(run.status === "completed" ? { current: 1, total: 1 } : run.progress);
  $("error").hidden = !run.error;
  $("error").textContent = run.error;
  $("report").hidden = run.status !== "completed";
  const drawn = `${run.id} ${run.status}`;
  if ($("report").dataset.drawn === drawn) return; // what was chosen in it stays
  $("report").dataset.drawn = drawn;
  $("report").replaceChildren(...(run.status === "completed" ? report(run.output, $("bar").clientWidth) : []));
}

function drawProgress(progress) {
  $("bar").max = progress?.total || 1;
  $("bar").value = progress?.current ?? 0;
  $("message").textContent = progress?.message ?? "";
}

// Asking

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) start(file, file.name).catch(complain);
  $("file").value = ""; // so that the same file can be chosen again
});

$("sample").addEventListener("click", async () => {
  try {
    const response = await fetch(new URL("./sf-temps.csv", import.meta.url));
    if (!response.ok) throw new Error(`The sample could not be loaded: HTTP ${response.status}`);
    await start(await response.blob(), "sf-temps.csv");
  } catch (error) {
    complain(error);
  }
});

for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type.startsWith("dragenter") || type === "dragover");
    const file = type === "drop" && event.dataTransfer.files[0];
    if (file) start(file, file.name).catch(complain);
  });
}

try {
  const durably = await opening;
  durably.on("run:progress", ({ runId, progress }) => runId === shown && drawProgress(progress));
  for (const type of ["run:trigger", "run:leased", "run:complete", "run:fail", "run:cancel", "run:delete"]) {
    durably.on(type, () => refresh().catch(complain));
  }
  await refresh();
  document.documentElement.dataset.ready = "";
} catch (error) {
  complain(error);
}
