// The list of runs, and what a visitor can ask of each.

import { dayAndTime, element, part, plural } from "./elements.js";

/** @typedef {"show" | "cancel" | "retry" | "delete"} Act */

/**
 * What each status is called on the page.
 *
 * @type {Record<string, string>}
 */
export const STATUS_WORDS = {
  pending: "waiting",
  leased: "running",
  waiting: "waiting",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
};

/** @type {Record<Act, string>} */
const ACT_WORDS = { show: "Show", cancel: "Cancel", retry: "Retry", delete: "Delete" };

/** @param {any} run */
export const nameOf = (run) => run.labels?.file ?? run.input?.file_name ?? run.jobName;

/** @param {any} run */
export function progressWords(run) {
  const { current, total } = run.progress ?? {};
  if (run.status === "completed") return run.output?.saved === undefined ? "" : plural(run.output.saved, "row") + " saved";
  if (current === undefined) return "";
  return total ? `chunk ${current} of ${total}` : `chunk ${current}`;
}

/**
 * @param {any} run
 * @returns {Act[]}
 */
function actsFor(run) {
  if (run.isActive) return ["show", "cancel"];
  return run.status === "completed" ? ["show", "delete"] : ["show", "retry", "delete"];
}

/**
 * Draw the list anew; the focus stays on the button that had it.
 *
 * @param {any[]} runs  Newest first.
 * @param {string | null} shown  The id of the run that the page shows.
 * @param {boolean} enabled
 * @param {(act: Act, id: string) => void} ask
 */
export function drawRuns(runs, shown, enabled, ask) {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.key : undefined;
  part("no-runs").hidden = runs.length > 0 || !enabled;
  part("runs").replaceChildren(...runs.map((run) => line(run, run.id === shown, enabled, ask)));
  if (focused) {
    /** @type {HTMLElement | null} */ (document.querySelector(`[data-key="${CSS.escape(focused)}"]`))?.focus();
  }
}

/**
 * @param {any} run
 * @param {boolean} shown
 * @param {boolean} enabled
 * @param {(act: Act, id: string) => void} ask
 */
function line(run, shown, enabled, ask) {
  const buttons = actsFor(run).map((act) => {
    const button = element(
      "button",
      {
        type: "button",
        disabled: !enabled,
        "data-testid": act,
        "data-key": `${act} ${run.id}`,
        "aria-label": `${ACT_WORDS[act]} the run of ${nameOf(run)} from ${dayAndTime(run.createdAt)}`,
      },
      ACT_WORDS[act],
    );
    button.addEventListener("click", () => ask(act, run.id));
    return button;
  });
  return element(
    "li",
    { "data-testid": "run-line", "data-run": run.id, "data-status": run.status, "aria-current": shown && "true" },
    element("span", { class: "what" }, element("b", {}, nameOf(run)), element("small", {}, dayAndTime(run.createdAt))),
    element("span", { class: "pill", "data-state": run.status }, STATUS_WORDS[run.status] ?? run.status),
    element("span", { class: "how" }, progressWords(run)),
    element("span", { class: "acts" }, ...buttons),
  );
}
