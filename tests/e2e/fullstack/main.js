// Every hook of the fullstack client of @coji/durably-react, unchanged, against our server.

import { createDurably } from "@coji/durably-react";
import { createElement as h, useState } from "react";
import { createRoot } from "react-dom/client";

const durably = createDurably({ api: "/api/durably" });

const button = (label, onClick) => h("button", { onClick }, label);
const shown = (id, value) => h("pre", { id }, JSON.stringify(value));

/** `useJob`: asks for a run, and follows it. */
function Job({ name, input }) {
  const { trigger, triggerAndWait, logs, currentRunId, status, output, error, progress, isTerminal } =
    durably[name].useJob();
  const [waited, setWaited] = useState(null);
  const told = logs.map(({ level, message, data }) => [level, message, data]);
  return h(
    "section",
    { id: name },
    button("trigger", () => trigger(input)),
    button("wait", () => triggerAndWait(input).then(({ output }) => setWaited(output), ({ message }) => setWaited(message))),
    shown(`${name}-state`, { runId: currentRunId, status, output, error, progress, isTerminal, logs: told, waited }),
  );
}

/** `useRun` and `useLogs`: follow a run that somebody else has asked for. */
function Run({ name, id }) {
  const { status, output, error } = durably[name].useRun(id);
  const { logs } = durably[name].useLogs(id);
  return shown("run-state", { status, output, error, logs: logs.map(({ message }) => message) });
}

/** `useRuns` and `useRunActions`. */
function Runs({ onSelect }) {
  const [statuses, setStatuses] = useState(undefined);
  const list = durably.useRuns({ pageSize: 3, status: statuses });
  const { retrigger, cancel, deleteRun, getRun, getSteps } = durably.useRunActions();
  const [answer, setAnswer] = useState(null);
  const act = (action) => () => action().then((value) => setAnswer(value ?? "done"), ({ message }) => setAnswer(message));
  return h(
    "section",
    { id: "runs" },
    button("newer", list.prevPage),
    button("older", list.nextPage),
    button("ended", () => setStatuses(["completed", "cancelled"])),
    shown("list-state", { page: list.page, hasMore: list.hasMore, error: list.error, isLoading: list.isLoading }),
    shown("answer", answer),
    h(
      "ul",
      {},
      list.runs.map((run) =>
        h(
          "li",
          { key: run.id, "data-run": run.id },
          `${run.jobName} ${run.status} `,
          button("retrigger", act(() => retrigger(run.id))),
          button("cancel", act(() => cancel(run.id))),
          button("delete", act(() => deleteRun(run.id))),
          button("steps", act(() => getSteps(run.id).then((steps) => steps.map(({ name, status }) => [name, status])))),
          button("get", act(() => getRun(run.id))),
          button("get none", act(() => getRun("nobody").then((run) => String(run)))),
          button("select", () => onSelect(run)),
        ),
      ),
    ),
  );
}

const INPUTS = { save_chunks: { chunks: 5 }, ask: {}, fail: {} };

/** One job at a time: each hook holds a connection or two, and over HTTP/1.1 a browser has six. */
function App() {
  const [name, setName] = useState("save_chunks");
  const [selected, select] = useState(null);
  return h(
    "main",
    {},
    Object.keys(INPUTS).map((one) => h("button", { key: one, onClick: () => setName(one) }, one)),
    h(Job, { name, input: INPUTS[name], key: name }),
    h(Runs, { onSelect: select }),
    selected && h(Run, { name: selected.jobName, id: selected.id, key: selected.id }),
  );
}

createRoot(document.getElementById("root")).render(h(App));
