// Expenses that wait for a person: they are asked here, decided here, and survive the page in between.

import { dayAndTime, element, part } from "./elements.js";

export const EXPENSE = "expense";
const MOST_SHOWN = 8;

const money = new Intl.NumberFormat("en", { style: "currency", currency: "USD" });

/** @type {any} */
let durably;
let ready = false;

/** @param {any} engine */
export function listenToApprovals(engine) {
  durably = engine;
  const again = () => void refreshApprovals().catch(complain);
  for (const type of ["run:trigger", "run:waiting", "run:complete", "run:fail", "run:cancel", "run:delete"]) {
    durably.on(type, (/** @type {any} */ event) => [EXPENSE, null].includes(event.jobName) && again());
  }
  part("expense").addEventListener("submit", (event) => {
    event.preventDefault();
    const form = new FormData(/** @type {HTMLFormElement} */ (event.target));
    const input = { what: String(form.get("what")), amount: Number(form.get("amount")) };
    part("expense-error").hidden = true;
    durably.trigger(EXPENSE, input).catch(complain);
  });
  part("expenses").addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    if (button) decide(button).then(again, complain);
  });
}

/** @param {any} error */
function complain(error) {
  part("expense-error").textContent = error?.message || String(error);
  part("expense-error").hidden = false;
}

/** @param {boolean} may  the visitor may ask and decide */
export function allowApprovals(may) {
  ready = may;
  /** @type {HTMLButtonElement} */ (part("ask")).disabled = !may;
  for (const button of part("expenses").querySelectorAll("button")) button.disabled = !may;
}

/** @param {HTMLButtonElement} button */
async function decide(button) {
  const { act, run } = button.dataset;
  button.disabled = true;
  if (act === "delete") await durably.deleteRun(run);
  else await durably.signal(run, "decision", act);
}

export async function refreshApprovals() {
  const runs = await durably.getRuns({ jobName: EXPENSE, limit: MOST_SHOWN });
  part("expenses").replaceChildren(...runs.map(line));
}

/** @param {any} run */
function line(run) {
  const [state, word, told] = stateOf(run);
  const acts = run.status === "waiting" ? ["approved", "rejected"] : run.isTerminal ? ["delete"] : [];
  return element(
    "li",
    { "data-testid": "expense-line", "data-run": run.id, "data-state-of-run": word },
    element(
      "span",
      { class: "what" },
      element("b", {}, run.input.what || "(nothing)"),
      element("small", {}, `${money.format(run.input.amount)} · asked ${dayAndTime(run.createdAt)}`),
    ),
    element("span", { class: "pill", "data-state": state }, word),
    element("span", { class: "how" }, told),
    element("span", { class: "acts" }, ...acts.map((act) => button(act, run))),
  );
}

/**
 * How a run looks, what it is called, and what there is to say.
 *
 * @param {any} run
 */
function stateOf(run) {
  if (run.status === "waiting") return ["waiting", "waits for you", ""];
  if (run.status === "failed") return ["failed", "failed", run.error];
  if (run.status === "cancelled") return ["cancelled", "cancelled", ""];
  if (run.status !== "completed") return ["leased", "at work", ""];
  const { decision, payment } = run.output;
  return decision === "approved" ? ["completed", "approved", `paid once, as ${payment}`] : ["cancelled", decision, "nothing was paid"];
}

/** @type {Record<string, string>} */
const WORDS = { approved: "Approve", rejected: "Reject", delete: "Delete" };

/**
 * @param {string} act
 * @param {any} run
 */
function button(act, run) {
  return element(
    "button",
    {
      type: "button",
      class: act === "approved" ? "primary" : "",
      disabled: !ready,
      "data-act": act,
      "data-run": run.id,
      "aria-label": `${WORDS[act]} ${run.input.what}`,
    },
    WORDS[act],
  );
}
