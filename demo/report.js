// A finished run's report as tables.

import { count, element, figure, plural } from "./elements.js";

/** Columns of numbers shown in the table of groups; more would not fit. */
const MOST_NUMBERS = 3;

/**
 * @typedef {{min: number, mean: number, max: number}} Spread
 * @typedef {object} Report
 * @property {string[]} columns
 * @property {number} row_count
 * @property {number} saved
 * @property {number} rejected_count
 * @property {{row: number, reason: string}[]} rejected
 * @property {{chunk: number, rows: number, times_saved: number}[]} chunks
 * @property {Record<string, Spread>} numbers
 * @property {string | null} group_by
 * @property {number} group_count
 * @property {{name: string, count: number, numbers: Record<string, Spread>}[]} groups
 */

/** @param {Report} report */
export function reportView(report) {
  const sections = [tiles(report), chunks(report)];
  if (report.rejected_count) sections.push(rejected(report));
  sections.push(report.groups.length ? groups(report) : numbers(report));
  return sections;
}

/** @param {Report} report */
function tiles(report) {
  const again = report.chunks.filter((chunk) => chunk.times_saved !== 1).length;
  const facts = [
    ["Rows in the file", count(report.row_count), "", "row-count"],
    ["Rows saved", count(report.saved), "good", "saved"],
    ["Rows left out", count(report.rejected_count), report.rejected_count ? "bad" : "", "rejected-count"],
    ["Chunks", count(report.chunks.length), "", "chunk-count"],
    ["Chunks saved twice", count(again), again ? "bad" : "good", "chunks-again"],
  ];
  return element(
    "dl",
    { class: "tiles" },
    ...facts.map(([name, value, tone, test]) =>
      element("div", { class: tone }, element("dt", {}, name), element("dd", { "data-testid": test }, value)),
    ),
  );
}

/** @param {Report} report */
function chunks(report) {
  const list = element("ul", { class: "chunks", "data-testid": "chunks" });
  for (const chunk of report.chunks) {
    const told = `chunk ${chunk.chunk}: ${plural(chunk.rows, "row")}, saved ${plural(chunk.times_saved, "time")}`;
    list.append(
      element(
        "li",
        { title: told, "data-chunk": String(chunk.chunk), "data-times-saved": String(chunk.times_saved), "data-again": String(chunk.times_saved !== 1) },
        element("span", { "aria-hidden": "true" }, `${chunk.times_saved}×`),
        element("span", { class: "quiet" }, told),
      ),
    );
  }
  const hint = element("p", { class: "hint" }, "Once each is right, however often the tab was closed or killed in the middle.");
  return element("div", {}, element("h3", {}, "How often each chunk was saved"), hint, list);
}

/** @param {Report} report */
function rejected(report) {
  const rows = report.rejected.map(({ row, reason }) =>
    element("tr", {}, element("th", { scope: "row" }, count(row)), element("td", { class: "text" }, reason)),
  );
  const rest = report.rejected_count - report.rejected.length;
  return element(
    "div",
    {},
    element("h3", {}, `Rows left out: ${count(report.rejected_count)}`),
    table("rejected", "Rows that were left out, and why", [["Row", ""], ["Reason", "text"]], rows),
    ...(rest > 0 ? [element("p", { class: "hint" }, `and ${plural(rest, "more row")}`)] : []),
  );
}

/** @param {Report} report */
function groups(report) {
  const named = Object.keys(report.numbers).slice(0, MOST_NUMBERS);
  const most = Math.max(...report.groups.map((group) => group.count));
  const rows = report.groups.map((group) =>
    element(
      "tr",
      { "data-group": group.name },
      element("th", { scope: "row", class: "text" }, group.name || "(empty)"),
      element("td", {}, count(group.count)),
      element("td", { class: "share" }, element("meter", { min: "0", max: String(most), value: String(group.count), "aria-hidden": "true" })),
      ...named.map((name) => element("td", {}, group.numbers[name] ? figure(group.numbers[name].mean) : "–")),
    ),
  );
  const heads = [[report.group_by ?? "", "text"], ["Rows", ""], ["", "share"], ...named.map((name) => [`mean ${name}`, ""])];
  const rest = report.group_count - report.groups.length;
  return element(
    "div",
    {},
    element("h3", {}, `By ${report.group_by}: ${plural(report.group_count, "group")}`),
    table("groups", `Rows by ${report.group_by}`, heads, rows),
    ...(rest > 0 ? [element("p", { class: "hint" }, `and ${plural(rest, "more group")}`)] : []),
  );
}

/** @param {Report} report */
function numbers(report) {
  const rows = Object.entries(report.numbers).map(([name, spread]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", class: "text" }, name),
      ...[spread.min, spread.mean, spread.max].map((value) => element("td", {}, figure(value))),
    ),
  );
  if (!rows.length) return element("p", { class: "hint" }, `Columns: ${report.columns.join(", ")}`);
  const heads = [["Column", "text"], ["Least", ""], ["Mean", ""], ["Greatest", ""]];
  return element("div", {}, element("h3", {}, "Columns of numbers"), table("numbers", "Columns of numbers", heads, rows));
}

/**
 * @param {string} test
 * @param {string} caption
 * @param {string[][]} heads  Name and class of each column.
 * @param {HTMLElement[]} rows
 */
function table(test, caption, heads, rows) {
  const head = element("tr", {}, ...heads.map(([name, style]) => element("th", { scope: "col", class: style }, name)));
  const body = element("table", { "data-testid": test }, element("caption", { class: "quiet" }, caption), element("thead", {}, head), element("tbody", {}, ...rows));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, body);
}
