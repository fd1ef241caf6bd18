import type { JobDefinition } from "@coji/durably";
import { useDurably } from "@coji/durably-react/spa";
import { createDurably, type LogLine, type Run, type Status, type StatusDetail } from "durably-web";
import { useEffect, useState, useSyncExternalStore } from "react";

// Where Vite serves what is in public/, as it is.
const base = import.meta.env.BASE_URL;

export type Input = { below: number; blocks: number; pause: number; failAt: number | null };
export type Output = { primes: number };

/** The job of jobs.py, as the hooks know it. */
export const primes: JobDefinition<"primes", Input, Output> = { name: "primes" };

type Known = { status: Status; detail: StatusDetail };
let known: Known = { status: "starting", detail: {} };
const watchers = new Set<() => void>();

export const durably = createDurably({
  jobs: `${base}jobs.py`,
  runtime: `${base}durably-web/`,
  base,
  database: "react-example",
  onStatus(status, detail) {
    known = { status, detail };
    for (const tell of watchers) tell();
  },
});

/** Whether the jobs run in this tab, or how far their start is. */
export function useStatus(): Known {
  return useSyncExternalStore(
    (tell) => {
      watchers.add(tell);
      return () => watchers.delete(tell);
    },
    () => known,
  );
}

/** A run and all its log lines as they are stored. The hooks tell only what happens from now on: `version` says when to look again. */
export function useStored(runId: string, version: string) {
  const { durably } = useDurably();
  const [stored, setStored] = useState<{ run: Run | null; logs: LogLine[] }>({ run: null, logs: [] });
  useEffect(() => {
    let wanted = true;
    Promise.all([durably.getRun(runId), durably.getLogs(runId)]).then(
      ([run, logs]) => wanted && setStored({ run, logs }),
      (error: unknown) => console.error(error),
    );
    return () => {
      wanted = false;
    };
  }, [durably, runId, version]);
  return stored;
}
