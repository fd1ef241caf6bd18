import { createDurably } from "./durably-web/client.js";
import { forget, keep } from "./files.js";
import { samples } from "./samples.js";

const $ = (id) => document.getElementById(id);
const WORDS = { pending: "waits", leased: "running", waiting: "waits", completed: "done", failed: "failed", cancelled: "stopped" };

/** @type {{id: string, stop: AbortController, ended: boolean} | null}  The batch on display, and whether it was followed to its end. */
let shown = null;

// Resolves before Python is up. Until then the page can be used: what is asked for waits for this.
const opening = createDurably({ jobs: ["./jobs.py", "./pictures.py", "./alike.py"], database: "images", onStatus: showStatus });

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

/** An element. Text is only ever set as text, so that nothing in a file's name becomes markup. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Store the pictures, and ask for a run that knows their names. From then on the tab may go. */
async function start(files) {
  $("problem").hidden = true;
  if (!files.length) return;
  const durably = await opening;
  const pictures = [];
  for (const file of files) pictures.push({ file: await keep(file), name: file.name });
  const input = $("single").checked ? { pictures, at_once: 1 } : { pictures };
  const run = await durably.trigger("sort_pictures", input);
  await refresh(run.id);
}

// Batches

async function refresh(id = shown?.id) {
  const durably = await opening;
  const runs = await durably.getRuns({ jobName: "sort_pictures", limit: 20 });
  $("none").hidden = runs.length > 0;
  const focused = document.activeElement?.id;
  $("runs").replaceChildren(...runs.map((run) => line(durably, run)));
  $(focused)?.focus(); // the buttons are new ones
  const run = runs.find((one) => one.id === id) ?? runs[0];
  $("shown").hidden = !run;
  if (run) show(durably, run);
}

function line(durably, run) {
  const button = (word, act) => {
    const made = element("button", { type: "button", id: `${word}-${run.id}`, "aria-label": `${word} the batch of ${when(run)}` }, word);
    made.addEventListener("click", () => act().catch(complain));
    return made;
  };
  const acts = [button("Show", () => refresh(run.id))];
  if (run.isActive) acts.push(button("Stop", () => durably.cancel(run.id)));
  if (["failed", "cancelled"].includes(run.status)) acts.push(button("Go on", () => durably.retry(run.id)));
  if (run.isTerminal) acts.push(button("Delete", () => remove(durably, run)));
  return element("li", { "data-run": run.id, "data-status": run.status },
    element("span", {}, element("b", {}, plural(run.input.pictures.length, "picture")), " ", element("small", {}, when(run))),
    element("span", { class: "badge", "data-state": run.status }, WORDS[run.status]),
    ...acts);
}

const when = (run) => new Date(run.createdAt).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Remove a batch, and those of its pictures that no other batch has. */
async function remove(durably, run) {
  await durably.deleteRun(run.id);
  const others = await durably.getRuns({ jobName: "sort_pictures" });
  const used = new Set(others.flatMap(({ input }) => input.pictures.map(({ file }) => file)));
  for (const { file } of run.input.pictures) if (!used.has(file)) await forget(file);
}

// One batch

function show(durably, run) {
  $("name").textContent = plural(run.input.pictures.length, "picture");
  $("state").textContent = WORDS[run.status];
  $("state").dataset.state = run.status;
  $("shown").dataset.status = run.status;
  $("error").hidden = !run.error;
  $("error").textContent = run.error;
  if (run.status === "completed") drawResult(run);
  else drawProgress(run.progress);
  // One that was stopped, and goes on, is followed anew.
  if (shown?.id === run.id && !(shown.ended && run.isActive)) return;
  shown?.stop.abort();
  shown = { id: run.id, stop: new AbortController(), ended: false };
  $("cards").replaceChildren(...run.input.pictures.map(({ name }) => element("li", {}, element("span", { class: "blank" }), element("span", {}, name))));
  follow(durably, shown).catch((error) => error.name === "AbortError" || complain(error));
}

/** All that has happened to this run, and what comes: a card is drawn as soon as its step's result is stored. */
async function follow(durably, batch) {
  for await (const event of durably.subscribe(batch.id, { signal: batch.stop.signal })) {
    const number = Number(/^picture (\d+)$/.exec(event.stepName ?? "")?.[1]);
    if (number && event.type === "step:complete") drawCard(number - 1, event.output);
    if (number && event.type === "step:fail") drawCard(number - 1, { error: event.error.replace(/^ValueError: /, "") });
    if (event.type === "run:progress" && $("shown").dataset.status !== "completed") drawProgress(event.progress);
  }
  batch.ended = true;
  const run = await durably.getRun(batch.id);
  if (run && shown === batch) show(durably, run);
}

function drawProgress(progress) {
  $("bar").max = progress?.total || 1;
  $("bar").value = progress?.current ?? 0;
  $("message").textContent = progress ? `${progress.current} of ${progress.total}` : "";
}

function drawResult({ output, startedAt, completedAt }) {
  drawProgress({ current: 1, total: 1 });
  const seconds = (Date.parse(completedAt) - Date.parse(startedAt)) / 1000;
  const told = [`took ${seconds.toFixed(1)} s`];
  if (output.alike.length) told.push(`${plural(output.alike.length, "group")} of pictures that are alike`);
  if (output.failed) told.push(`${plural(output.failed, "file")} could not be read`);
  $("message").textContent = told.join(" · ");
  output.alike.forEach((positions, group) => {
    for (const at of positions) {
      const card = $("cards").children[at];
      card.dataset.alike = group + 1;
      card.querySelector(".alike")?.remove();
      card.append(element("small", { class: "alike" }, `alike, group ${group + 1}`));
    }
  });
}

function drawCard(at, { error, small, width, height, colours }) {
  const card = $("cards").children[at];
  const name = element("span", {}, card.children[1].textContent);
  if (error) {
    card.replaceChildren(element("span", { class: "blank" }, "?"), name, element("small", { class: "bad" }, error));
    return;
  }
  const swatches = colours.map((colour) => {
    const swatch = element("span", { title: colour });
    swatch.style.background = colour;
    return swatch;
  });
  card.replaceChildren(
    element("img", { src: small, alt: "" }),
    name,
    element("span", { class: "colours", role: "img", "aria-label": `colours ${colours.join(", ")}` }, ...swatches),
    element("small", {}, `${width} × ${height}`),
  );
}

// Asking

$("files").addEventListener("change", () => {
  const files = [...$("files").files];
  $("files").value = ""; // so that the same files can be chosen again
  start(files).catch(complain);
});

$("samples").addEventListener("click", () => samples(22).then(start).catch(complain));

for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type === "drop") start([...event.dataTransfer.files]).catch(complain);
  });
}

try {
  const durably = await opening;
  for (const type of ["run:trigger", "run:leased", "run:complete", "run:fail", "run:cancel", "run:delete"]) {
    durably.on(type, () => refresh().catch(complain));
  }
  await refresh();
  document.documentElement.dataset.ready = "";
} catch (error) {
  complain(error);
}
