// The page: asks for runs and shows them. The jobs are in jobs.py.

import { createDurably } from "./durably-web/client.js";

const $ = (id) => document.getElementById(id);

const WORDS = { leader: "ready", follower: "ready: another tab runs the jobs", failed: "not working" };

function showStatus(status, { phase, error } = {}) {
  const starting = status === "leader" && phase && phase !== "running";
  $("status").textContent = starting ? "Python is starting" : (WORDS[status] ?? status);
  $("status").dataset.state = starting ? "starting" : status;
  if (error) complain(error);
}

function complain(error) {
  $("problem").textContent = error.message ?? String(error);
  $("problem").hidden = false;
  console.error(error);
}

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function runItem(run) {
  const bar = element("progress");
  bar.max = run.progress?.total ?? 1;
  bar.value = run.status === "completed" ? bar.max : (run.progress?.current ?? 0);
  const began = new Date(run.createdAt).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const head = element("div", "", element("strong", run.status === "leased" ? "running" : run.status), element("time", began));
  const item = element("li", "", head, bar);
  if (run.isActive && run.progress) item.append(element("p", run.progress.message));
  if (run.error) item.append(element("p", run.error));
  if (run.status === "completed") {
    const { words, different, frequent } = run.output;
    item.append(element("p", `${words} words, ${different} different.`));
    item.append(element("ul", "", ...frequent.map(([word, count]) => element("li", "", word, element("b", String(count))))));
  }
  item.dataset.status = run.status;
  return item;
}

async function main() {
  const durably = await createDurably({ jobs: "./jobs.py", database: "words", onStatus: showStatus });

  async function refresh() {
    const runs = await durably.getRuns({ jobName: "count_words", limit: 5 });
    $("none").hidden = runs.length > 0;
    $("runs").replaceChildren(...runs.map(runItem));
  }

  for (const type of ["run:trigger", "run:progress", "run:complete", "run:fail"]) {
    durably.on(type, () => refresh().catch(complain));
  }
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    // Stored when it resolves; the run survives this page from then on.
    durably.trigger("count_words", { text: $("text").value }).then(refresh).catch(complain);
  });
  $("start").disabled = false;
  await refresh();
  await durably.ready;
}

main().catch(complain);
