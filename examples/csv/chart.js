// A chart as SVG: a line with a band for days, months or years, bars for anything else.

const HEIGHT = 240;
const LEFT = 48;
const BOTTOM = 24;
/** Of more groups the largest are shown. */
export const MOST_BARS = 20;

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Mean, least and greatest value of a column over time. `groups` is day → column → [how many, sum, least, greatest]. */
export function lineChart(groups, column, width) {
  const points = Object.entries(groups).filter(([when, figures]) => when && figures[column]);
  const values = points.map(([when, figures]) => [Date.parse(when), ...figures[column]]);
  const [first, last] = [values[0][0], values.at(-1)[0]];
  const low = Math.min(...values.map(([, , , least]) => least));
  const high = Math.max(...values.map(([, , , , greatest]) => greatest));
  const x = (when) => LEFT + ((when - first) / (last - first || 1)) * (width - LEFT - 8);
  const y = (value) => 8 + ((high - value) / (high - low || 1)) * (HEIGHT - BOTTOM - 16);
  const upper = values.map(([when, , , , greatest]) => `${x(when)},${y(greatest)}`);
  const lower = values.map(([when, , , least]) => `${x(when)},${y(least)}`);
  const mean = values.map(([when, count, sum]) => `${x(when)},${y(sum / count)}`);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  chart.setAttribute("aria-label", `${column} from ${points[0][0]} to ${points.at(-1)[0]}: between ${low} and ${high}`);
  for (let line = 0; line <= 4; line++) {
    const value = low + ((high - low) * line) / 4;
    chart.append(
      svg("line", { class: "grid", x1: LEFT, x2: width - 8, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, short.format(value)),
    );
  }
  chart.append(
    svg("polygon", { class: "band", points: [...upper, ...lower.reverse()].join(" ") }),
    svg("polyline", { class: "mean", points: mean.join(" ") }),
    svg("text", { x: LEFT, y: HEIGHT - 6 }, points[0][0]),
    svg("text", { x: width - 8, y: HEIGHT - 6, "text-anchor": "end" }, points.at(-1)[0]),
  );
  return chart;
}

/** How many rows each group has; the column "" of a group counts its rows. */
export function barChart(groups, width) {
  const bars = Object.entries(groups).map(([name, figures]) => [name || "(empty)", figures[""][0]]);
  bars.sort(([, one], [, other]) => other - one);
  const shown = bars.slice(0, MOST_BARS);
  const most = shown[0][1];
  const labels = shown.map(([name]) => (name.length > 20 ? `${name.slice(0, 19)}…` : name));
  const left = 12 + 8 * Math.max(...labels.map(({ length }) => length));
  const chart = svg("svg", { viewBox: `0 0 ${width} ${shown.length * 22}`, role: "img" });
  chart.setAttribute("aria-label", `Rows by group: ${shown.map(([name, count]) => `${name} ${count}`).join(", ")}`);
  shown.forEach(([, count], at) => {
    const length = (count / most) * (width - left - 70);
    chart.append(
      svg("text", { x: left - 8, y: at * 22 + 15, "text-anchor": "end" }, labels[at]),
      svg("rect", { class: "bar", x: left, y: at * 22 + 4, width: Math.max(length, 1), height: 14, rx: 3 }),
      svg("text", { x: left + 8 + length, y: at * 22 + 15 }, count.toLocaleString("en")),
    );
  });
  return chart;
}
