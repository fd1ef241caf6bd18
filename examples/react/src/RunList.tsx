import type { TypedRun, UseRunsResult } from "@coji/durably-react/spa";
import type { Input, Output } from "./durably";
import { State } from "./parts";

type Props = { list: UseRunsResult<Input, Output>; selected: string | null; onSelect: (runId: string) => void };

/** The runs of all tabs, newest first, a page at a time; it changes by itself. */
export function RunList({ list: { runs, page, hasMore, prevPage, nextPage }, selected, onSelect }: Props) {
  return (
    <section className="card">
      <div className="row">
        <h2>All counts</h2>
        <nav aria-label="Pages">
          <button onClick={prevPage} disabled={page === 0} aria-label="Newer">
            ‹
          </button>
          <span data-testid="page">{page + 1}</span>
          <button onClick={nextPage} disabled={!hasMore} aria-label="Older">
            ›
          </button>
        </nav>
      </div>
      {runs.length === 0 && <p className="soft">None yet.</p>}
      <ul className="runs" data-testid="runs">
        {runs.map((run) => (
          <li key={run.id}>
            <button aria-pressed={run.id === selected} onClick={() => onSelect(run.id)} data-run={run.id}>
              <State of={run.status} />
              <span>below {run.input.below.toLocaleString("en")}</span>
              <span className="soft">{summary(run)}</span>
              <time dateTime={run.createdAt}>{new Date(run.createdAt).toLocaleTimeString()}</time>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

function summary({ output, progress }: TypedRun<Input, Output>) {
  if (output) return `${output.primes.toLocaleString("en")} primes`;
  return progress ? `${progress.current} of ${progress.total}` : "";
}
