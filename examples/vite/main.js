import { createDurably } from "durably-web";
import "./style.css";

const $ = (id) => document.getElementById(id);

// Where Vite serves what is in public/, as it is.
const base = import.meta.env.BASE_URL;

const durably = await createDurably({
  jobs: `${base}jobs.py`,
  runtime: `${base}durably-web/`,
  base,
  database: "vite-example",
});

durably.on("run:progress", ({ progress }) => {
  $("bar").max = progress.total;
  $("bar").value = progress.current;
  $("message").textContent = progress.message;
});

async function follow(run) {
  const { status, output, error } = await durably.waitForRun(run.id);
  $("result").textContent = status === "completed" ? `${output.primes} primes` : `${status}: ${error}`;
}

$("start").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("result").textContent = "";
  const input = { below: $("below").valueAsNumber, pause: $("pause").valueAsNumber, offload: $("offload").checked };
  await follow(await durably.trigger("primes", input));
});

const [unfinished] = await durably.getRuns({ status: ["pending", "leased", "waiting"], limit: 1 });
$("message").textContent = unfinished ? "Going on …" : "Ready.";
// Runs can be asked for already; this is about the jobs: their file may have a mistake.
durably.ready.catch((error) => {
  $("message").textContent = String(error);
});
if (unfinished) await follow(unfinished);
