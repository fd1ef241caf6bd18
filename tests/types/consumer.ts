// A page in strict TypeScript that uses everything that the declarations promise, and is stopped where it should be.
// It is compiled, never run: `make types`.

import { createDurably, Durably, DurablyError } from "../../build/types/client.js";
import type {
  DurablyEvent,
  EventType,
  JobHandle,
  LogLine,
  Options,
  Run,
  Schedule,
  Stats,
  Status,
  StatusDetail,
  Step,
  Storage,
  Triggered,
} from "../../build/types/client.js";

/** Fails to compile unless both types are the same. */
function same<A, B>(..._: (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? [] : [never]): void {}

export async function start(): Promise<Durably> {
  const { signal } = new AbortController();
  const key = crypto.getRandomValues(new Uint8Array(32));
  const durably = await createDurably({
    jobs: ["./jobs.py", new URL("https://example.org/more.py")],
    database: "app",
    requirements: ["a-package", "./wheels/x.whl"],
    durability: "relaxed",
    encryptionKey: [key],
    base: "/site/",
    runtime: "/site/durably-web/",
    pyodide: "/site/pyodide/",
    role: "auto",
    hangTimeout: 0,
    requestTimeout: 1_000,
    onStatus(status, detail) {
      same<typeof status, Status>();
      same<typeof detail, StatusDetail>();
      if (detail.phase === "python") console.log(status, detail.at, detail.error?.message);
    },
  });
  await createDurably({ url: "/api/durably", credentials: "include", requestTimeout: 5, onStatus: () => {} });
  await createDurably({ role: "follower" });
  // @ts-expect-error: jobs or url, not both
  await createDurably({ jobs: "./jobs.py", url: "/api" });
  // @ts-expect-error: there is no such option
  await createDurably({ job: "./jobs.py" });
  // @ts-expect-error: there is no such role
  await createDurably({ jobs: "./jobs.py", role: "leader" });
  // @ts-expect-error: it has no effect there
  await createDurably({ url: "/api", database: "app" });
  // @ts-expect-error: createDurably makes them
  new Durably();
  const options: Options = { jobs: "./jobs.py" };
  void options;
  same<typeof durably.status, Status>();
  await durably.ready;
  await durably.init();
  await triggers(durably, signal);
  await reading(durably, signal);
  await control(durably, signal);
  await schedules(durably, signal);
  events(durably);
  const storage: Storage = await durably.storage();
  console.log((storage.usage ?? 0) / (storage.quota ?? 1), storage.persisted, storage.bytes, storage.setAside?.[0]?.reason);
  const promised: boolean = await durably.persist();
  const blob: Blob = await durably.exportDatabase({ timeout: promised ? 1 : 2 });
  await durably.importDatabase(blob);
  await durably.deleteSetAside("name");
  await durably.close();
  return durably;
}

async function triggers(durably: Durably, signal: AbortSignal): Promise<void> {
  const limits = { signal, timeout: 1_000 };
  const triggered: Triggered = await durably.trigger("import_csv", { text: "a" }, {
    idempotencyKey: "i",
    concurrencyKey: "c",
    coalesce: "queue",
    labels: { org: "acme" },
    priority: 1,
    delay: 5,
    runAt: new Date(),
    debounce: { delay: 5, maxDelay: 10 },
    ...limits,
  });
  same<typeof triggered.disposition, "created" | "idempotent" | "coalesced">();
  await durably.trigger("import_csv");
  const many = await durably.triggerMany("import_csv", [{ input: 1, labels: { a: "b" } }, {}], limits);
  same<typeof many, Triggered[]>();
  console.log(await durably.triggerAndWait("import_csv", {}, { labels: {}, ...limits }));
  // @ts-expect-error: there is no such option
  await durably.trigger("import_csv", {}, { prority: 1 });
  // @ts-expect-error: there is no such way
  await durably.trigger("import_csv", {}, { coalesce: "drop" });
  // @ts-expect-error: the values of labels are texts
  await durably.trigger("import_csv", {}, { labels: { n: 1 } });
  // @ts-expect-error: a burst makes one run, and these are many
  await durably.triggerMany("import_csv", [{ debounce: 5 }]);

  const job: JobHandle = durably.jobs.import_csv ?? durably.register({ mine: { name: "import_csv" } }).jobs.mine!;
  console.log(job.name, await job.trigger({}, limits), await job.triggerAndWait({}, limits), await job.triggerMany([{}], limits));
  same<Awaited<ReturnType<typeof job.getRun>>, Run | null>();
  console.log(await job.getRuns({ status: ["leased", "pending"], labels: { a: "b" } }, limits));
  // @ts-expect-error: it is bound to its job
  await job.getRuns({ jobName: "other" });
}

async function reading(durably: Durably, signal: AbortSignal): Promise<void> {
  const limits = { signal, timeout: 1_000 };
  const run = await durably.getRun("r", limits);
  // @ts-expect-error: there may be none
  console.log(run.status);
  if (run?.status === "completed") console.log(run.output, run.progress?.current, run.labels.org, run.stepCount, run.isActive);
  const filter = { jobName: ["a", "b"], status: "failed", labels: { a: "b" }, limit: 5, offset: 5, after: "r" } as const;
  const runs: Run[] = await durably.getRuns({ ...filter, jobName: [...filter.jobName] }, limits);
  // @ts-expect-error: there is no such status
  await durably.getRuns({ status: "done" });
  const steps: Step[] = await durably.getSteps("r", limits);
  const logs: LogLine[] = await durably.getLogs("r", limits);
  const stats: Stats = await durably.stats(limits);
  console.log(runs.length, steps[0]?.attempts[0]?.error, logs[0]?.level, stats.byJob.a?.failed, stats.pausedJobs);
  const ended: Run = await durably.waitForRun("r", limits);
  console.log(ended.completedAt);
}

async function control(durably: Durably, signal: AbortSignal): Promise<void> {
  const limits = { signal, timeout: 1_000 };
  await durably.signal("r", "answer", { approved: true }, limits);
  await durably.cancel("r", limits);
  await durably.retry("r", limits);
  console.log((await durably.retrigger("r", limits)).id, (await durably.fork("r", { fromStep: "save#2", ...limits })).id);
  await durably.deleteRun("r", limits);
  await durably.pause("r", limits);
  await durably.resume("r", limits);
  await durably.pauseJob("a", limits);
  await durably.resumeJob("a", limits);
  const which = { jobName: "a", status: ["failed" as const], createdBefore: new Date() };
  let count: number = await durably.cancelRuns(which, limits);
  count += await durably.retryRuns(which, limits);
  count += await durably.pauseRuns(which, limits);
  count += await durably.resumeRuns(which, limits);
  count += await durably.deleteRuns(which, limits);
  count += await durably.purgeRuns({ olderThan: new Date(), limit: 5 }, limits);
  count += await durably.purgeRuns({ olderThan: 60_000 });
  // @ts-expect-error: a limit is not a condition
  count += await durably.cancelRuns({ limit: 5 });
  try {
    await durably.cancel("r");
  } catch (error) {
    if (error instanceof DurablyError && error.name === "Conflict") console.log(error.message, count);
  }
}

async function schedules(durably: Durably, signal: AbortSignal): Promise<void> {
  const limits = { signal, timeout: 1_000 };
  const schedule: Schedule = await durably.schedule("report", {
    name: "nightly",
    cron: "0 7 * * mon-fri",
    timezone: "Europe/Zurich",
    input: { year: 2030 },
    labels: { org: "acme" },
    priority: 1,
    missed: "one",
    overlap: "queue",
    catchUpWindow: 3_600_000,
    ...limits,
  });
  same<typeof schedule.missed, "skip" | "one" | "all">();
  await durably.jobs.report!.schedule({ every: 60_000 });
  const found = await durably.getSchedule("nightly", limits);
  // @ts-expect-error: there may be none
  console.log(found.nextAt);
  const all: Schedule[] = await durably.getSchedules(limits);
  console.log(found?.every ?? all[0]?.cron, found?.nextAt, found?.lastAt, schedule.catchUpWindow, schedule.paused);
  const paused: Schedule = await durably.pauseSchedule("nightly", limits);
  const resumed: Schedule = await durably.resumeSchedule(paused.name, limits);
  const runs: Run[] = await durably.getRuns({ schedule: resumed.name, status: "completed" });
  const triggered: Triggered = await durably.triggerSchedule("nightly", limits);
  const run: Run = await durably.waitForRun(triggered.id);
  console.log(run.schedule, run.scheduledAt, runs.length);
  await durably.removeSchedule("nightly", limits);
  // @ts-expect-error: there is no such policy
  await durably.schedule("report", { every: 5, missed: "none" });
  // @ts-expect-error: there is no such option
  await durably.schedule("report", { every: 5, timeZone: "UTC" });
}

function events(durably: Durably): void {
  const stop = durably.on("run:progress", (event) => {
    same<typeof event.type, "run:progress">();
    console.log(event.progress.current / (event.progress.total ?? 1), event.runId, event.seq, event.labels.org);
    // @ts-expect-error: that is what a completed run has
    console.log(event.output);
  });
  stop();
  durably.on("log:write", ({ level, message, data }) => console.log(level, message, data.rows));
  durably.on("worker:shutdown", ({ reason }) => same<typeof reason, "stop" | "close" | "pagehide">());
  durably.on("*", (event) => {
    same<typeof event, DurablyEvent>();
    same<typeof event.type, EventType>();
    if (event.type === "run:fail") console.log(event.error, event.failedStepName);
    // @ts-expect-error: not every event has it
    console.log(event.error);
  });
  // @ts-expect-error: there is no such event
  durably.on("run:progres", () => {});
  void (async () => {
    for await (const event of durably.subscribe("r", { after: 5, signal: AbortSignal.timeout(5) })) {
      if (event.type === "step:complete") console.log(event.stepName, event.output);
    }
    for await (const { seq } of durably.subscribe()) if (seq === 5) break;
  })();
}
