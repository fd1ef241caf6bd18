import type { Progress } from "@coji/durably-react/spa";
import type { RunStatus } from "durably-web";

/** A run's status as a pill. */
export function State({ of: status }: { of: RunStatus }) {
  return (
    <span className="pill" data-state={status}>
      {status === "leased" ? "running" : status}
    </span>
  );
}

export function Meter({ progress }: { progress: Progress | null }) {
  const { current = 0, total = 1, message = "" } = progress ?? {};
  return (
    <div className="meter">
      <progress value={current} max={total} aria-label="blocks counted" />
      <p className="soft">
        <span data-testid="blocks">{progress && `${current} of ${total}`}</span>
        <span>{message}</span>
      </p>
    </div>
  );
}

type Line = { level: string; message: string; data: unknown; timestamp?: string; createdAt?: string };

/** Log lines, as a hook heard them or as they are stored. */
export function Logs({ lines }: { lines: Line[] }) {
  return (
    <ol className="logs">
      {lines.map(({ level, message, data, timestamp, createdAt }, number) => (
        <li key={number} data-level={level}>
          <time>{new Date(timestamp ?? createdAt ?? 0).toLocaleTimeString()}</time>
          <span>{message}</span>
          <code>{Object.entries(data ?? {}).map(([name, value]) => `${name}=${value}`).join(" ")}</code>
        </li>
      ))}
    </ol>
  );
}
