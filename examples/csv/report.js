// What a finished run shows: figures, a chart, the rows that were left out, and the files.

import { MOST_BARS, barChart, lineChart } from "./chart.js";
import { pieces } from "./files.js";

const ENCODINGS = { "utf-8": "UTF-8", cp1252: "Windows-1252, because it is not UTF-8" };
const DELIMITERS = { ",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars" };

/** An element. Text is only ever set as text, so that nothing in a file becomes markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The parts of a report; `width` is the room for the chart in pixels. */
export function report(output, width) {
  const { layout, good, rejected_count, duplicates } = output;
  const tiles = { "good rows": good, "rows left out": rejected_count, "of these repeated": duplicates };
  return [
    element("dl", {}, ...Object.entries(tiles).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", { id: name.replaceAll(" ", "-") }, value.toLocaleString("en"))))),
    element("p", { class: "soft" }, `Read as ${ENCODINGS[layout.encoding]}, with ${DELIMITERS[layout.delimiter]} between the fields.`),
    element("div", { class: "row" },
      download("Download the clean rows", output, "clean"),
      ...(rejected_count ? [download("Download the rows left out", output, "rejected")] : [])),
    ...chart(output, width),
    element("h3", {}, "Columns"),
    columns(output),
    ...(rejected_count ? rejected(output) : []),
  ];
}

function download(label, output, kind) {
  const button = element("button", { type: "button", id: `get-${kind}` }, label);
  button.addEventListener("click", async () => {
    const address = URL.createObjectURL(await pieces(output.folder, kind, output.parts));
    element("a", { href: address, download: `${kind}-${output.name}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
  return button;
}

function chart({ layout, groups, figures }, width) {
  if (layout.group === null || !Object.keys(groups).length) return [];
  const by = layout.columns[layout.group];
  const numbers = Object.keys(figures).filter((column) => Object.values(groups).some((group) => group[column]));
  if (layout.types[layout.group] !== "date") {
    const many = Object.keys(groups).length;
    const title = many > MOST_BARS ? `Rows by ${by}, the ${MOST_BARS} largest of ${many} groups` : `Rows by ${by}`;
    return [element("h3", {}, title), barChart(groups, width)];
  }
  if (!numbers.length) return [];
  const select = element("select", { "aria-label": "Column of the chart" }, ...numbers.map((column) => element("option", {}, column)));
  const place = element("div", { id: "chart" }, lineChart(groups, numbers[0], width));
  select.addEventListener("change", () => place.replaceChildren(lineChart(groups, select.value, width)));
  const title = element("h3", {}, numbers.length === 1 ? `${numbers[0]} by ${by}` : `By ${by}: `);
  if (numbers.length > 1) title.append(select);
  return [title, place, element("p", { class: "soft" }, "The line is the mean; the band goes from the least to the greatest value.")];
}

function columns({ layout, missing, figures }) {
  const figure = (value) => value.toLocaleString("en", { maximumFractionDigits: 3 });
  return table("Columns", ["", "kind", "missing", "least", "mean", "greatest"], layout.columns.map((column, at) => {
    const found = figures[column];
    const [count, sum, least, greatest] = found ?? [];
    return [column, layout.types[at], figure(missing[column]), ...(found ? [figure(least), figure(sum / count), figure(greatest)] : ["", "", ""])];
  }), 2);
}

function rejected(output) {
  const rest = output.rejected_count - output.rejected.length;
  return [
    element("h3", {}, "Rows left out"),
    table("Rows left out", ["line", "why"], output.rejected, 2),
    ...(rest ? [element("p", { class: "soft" }, `and ${rest.toLocaleString("en")} more, which are in the file`)] : []),
  ];
}

/** A table whose first so many columns are text. */
function table(caption, heads, rows, texts) {
  const cells = (tag, values) => values.map((value, at) => element(tag, at < texts ? { class: "text" } : {}, String(value)));
  return element("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
    element("table", {},
      element("thead", {}, element("tr", {}, ...cells("th", heads))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row))))));
}
