/**
 * Types for `@coji/durably-react/spa` with this client. Its declarations import those of `@coji/durably`, which is not
 * needed here; name this file in the `types` of a tsconfig.json, as `durably-web/durably-react`, and they mean ours.
 */
declare module "@coji/durably" {
  /** The instance that `DurablyProvider` takes and `useDurably` gives. */
  export type Durably<Jobs = unknown, Labels = unknown> = import("durably-web").Durably;

  /** Includes `"waiting"`: a run that sleeps, or waits for a signal, a child or a retry. */
  export type RunStatus = import("durably-web").RunStatus;

  /** A job by its name; the function is in a Python file. `input` and `output` are types only, for the hooks to infer. */
  export interface JobDefinition<Name extends string = string, Input = unknown, Output = unknown> {
    readonly name: Name;
    readonly input?: Input;
    readonly output?: Output;
  }

  export type Run = import("durably-web").Run;
  export type ClientRun = Run;
}
