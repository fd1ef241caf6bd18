import { type TypedRun, useDurably, useJob, useRuns } from "@coji/durably-react/spa";
import { type FormEvent, useState } from "react";
import { type Input, type Output, primes, useStatus } from "./durably";
import { Logs, Meter, State } from "./parts";
import { RunDetails } from "./RunDetails";
import { RunList } from "./RunList";

const WHERE = {
  starting: "opening",
  leader: "runs in this tab",
  follower: "runs in another tab",
  closed: "closed",
  failed: "failed",
};

export function App() {
  const { durably } = useDurably();
  const { status, detail } = useStatus();
  const job = useJob(primes, { followLatest: false });
  const list = useRuns<TypedRun<Input, Output>>({ jobName: primes.name, pageSize: 5 });
  const [selected, select] = useState<string | null>(null);
  const [refusal, setRefusal] = useState<string | null>(null);
  // The hook hears what happens from now on; what it follows since a reload, only the list knows as yet.
  const current = list.runs.find((run) => run.id === job.currentRunId);
  const state = job.status ?? current?.status ?? (job.currentRunId && "pending");
  const progress = job.progress ?? current?.progress ?? null;

  async function start(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const [below, blocks, pause] = ["below", "blocks", "pause"].map((name) => Number(form.get(name)));
    const input = { below: below!, blocks: blocks!, pause: pause!, failAt: form.has("fail") ? Math.ceil(blocks! / 2) : null };
    setRefusal(null);
    try {
      await job.trigger(input);
      list.goToPage(0);
      void list.refresh();
    } catch (error) {
      setRefusal(String(error));
    }
  }

  return (
    <main>
      <header>
        <h1>Primes, counted in Python</h1>
        <p className="badge" data-testid="status" data-state={status}>
          {WHERE[status]}
          {detail.phase && status !== "follower" && detail.phase !== "running" && `: ${detail.phase} …`}
        </p>
        <p className="lead">
          Python, its database and this page are one static site. Each block is a stored step: reload or close the tab in the
          middle, and the count goes on behind the last one.
        </p>
      </header>

      <form className="card start" onSubmit={start}>
        <label>
          below
          <input name="below" type="number" min="1" max="10000000" defaultValue="500000" required />
        </label>
        <label>
          blocks
          <input name="blocks" type="number" min="1" max="1000" defaultValue="20" required />
        </label>
        <label>
          seconds a block
          <input name="pause" type="number" min="0" max="5" step="any" defaultValue="0.25" required />
        </label>
        <label className="check">
          <input name="fail" type="checkbox" /> one fails
        </label>
        <button className="primary">Count</button>
      </form>
      {(refusal ?? detail.error) && <p className="error">{refusal ?? String(detail.error)}</p>}

      {job.currentRunId && state && (
        <section className="card" data-testid="current" data-run={job.currentRunId}>
          <div className="row">
            <h2>This count</h2>
            <State of={state} />
          </div>
          <Meter progress={progress} />
          {job.output && <p className="result">{job.output.primes.toLocaleString("en")} primes</p>}
          {state === "failed" && <p className="error">{job.error}</p>}
          {!job.isTerminal && (
            <div className="actions">
              <button onClick={() => void durably.cancel(job.currentRunId!)}>Cancel</button>
            </div>
          )}
          <Logs lines={job.logs.slice(-5)} />
        </section>
      )}

      <RunList list={list} selected={selected} onSelect={select} />
      {selected && <RunDetails key={selected} runId={selected} />}
    </main>
  );
}
