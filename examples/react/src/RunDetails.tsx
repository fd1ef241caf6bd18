import { useDurably, useJobLogs, useJobRun } from "@coji/durably-react/spa";
import { useEffect, useState } from "react";
import { type Output, useStored } from "./durably";
import { Logs, Meter, State } from "./parts";

/** One run: what is stored of it, kept up to date by what the hooks hear. */
export function RunDetails({ runId }: { runId: string }) {
  const { durably } = useDurably();
  const live = useJobRun<Output>({ runId });
  const { logs: heard } = useJobLogs({ runId });
  const { run, logs } = useStored(runId, `${live.status} ${heard.length}`);
  const [refusal, setRefusal] = useState<string | null>(null);
  useEffect(() => setRefusal(null), [live.status]);
  if (!run) return null;

  const act = (ask: (runId: string) => Promise<unknown>) => () => {
    ask(runId).catch((error: unknown) => setRefusal(String(error)));
  };
  return (
    <section className="card" data-testid="details" data-heard={live.status}>
      <div className="row">
        <h2>
          <code>{runId}</code>
        </h2>
        <State of={run.status} />
      </div>
      <Meter progress={live.progress ?? run.progress} />
      {run.output && <p className="result">{run.output.primes.toLocaleString("en")} primes</p>}
      {run.error && <p className="error">{run.error}</p>}
      {refusal && <p className="error">{refusal}</p>}
      <div className="actions">
        {run.isTerminal || <button onClick={act((id) => durably.cancel(id))}>Cancel</button>}
        {["failed", "cancelled"].includes(run.status) && <button onClick={act((id) => durably.retry(id))}>Retry</button>}
        {run.isTerminal && <button onClick={act((id) => durably.retrigger(id))}>Again, from the start</button>}
      </div>
      <Logs lines={logs} />
    </section>
  );
}
