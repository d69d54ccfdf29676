// Percentiles over time, as `/v1/latency/series` has them: what is refused is a gap with its reason, never a line through it.

import { hatching, timeChart } from "./chart.js";
import { behind, h, s, table } from "./dom.js";
import { nothing } from "./panel.js";
import { durationTicks, logarithmic } from "./scale.js";
import { clock, count, duration, ms, share } from "./units.js";

const LINES = [["p50_ns", "p50"], ["p90_ns", "p90"], ["p99_ns", "p99"], ["p999_ns", "p99.9"], ["max_ns", "max"]];
let serial = 0;

/** Pieces of a line: neighbouring steps that have a value. */
export function pieces(rows, field, stepNs) {
  const found = [];
  let last = null;
  for (const row of rows) {
    if (row[field] === null || row[field] <= 0) continue;
    if (last === null || row.from_ns - last.from_ns > stepNs * 1.5) found.push([]);
    found.at(-1).push(row);
    last = row;
  }
  return found;
}

function values(row) {
  return LINES.map(([field, label]) => `${label} ${row[field] === null ? "refused" : duration(row[field])}`).join(", ");
}

/** What is refused, once per percentile: in how many steps, and the reason that the server gave last. */
function refusals(rows) {
  return LINES.flatMap(([field, label]) => {
    const without = rows.filter((row) => row.refused[field]);
    return without.length ? [`${label} is not drawn in ${without.length} of ${rows.length} steps: ${without.at(-1).refused[field]}`] : [];
  });
}

/** `found` is the answer for one stage; `about`: `{ key, width, zoom, marks, longer }`, `longer` a link to a longer step. */
export function percentiles(found, about) {
  const rows = found.series;
  if (!rows.length) return [nothing("No messages in this time.")];
  const stepNs = found.step_s * 1e9;
  const all = rows.flatMap((row) => LINES.map(([field]) => row[field]).filter((value) => value !== null && value > 0));
  if (!all.length) return [nothing("No step has a latency above zero.")];
  const [low, high] = [Math.min(...all) / 1.1, Math.max(...all) * 1.1];
  const byTime = new Map(rows.map((row) => [ms(row.from_ns), row]));
  const unsure = rows.filter((row) => row.completeness === null || row.completeness < 1);
  const id = `hatch-p${(serial += 1)}`;
  const paint = (x, y, box) => [
    s("defs", {}, hatching(id)),
    ...unsure.map((row) => s("rect", { class: "unsure", fill: `url(#${id})`, x: x(ms(row.from_ns)), width: Math.max(1, x(ms(row.to_ns)) - x(ms(row.from_ns))), y: box.top, height: box.bottom - box.top })),
    ...pieces(rows, "p99_ns", stepNs).map((piece) => s("path", { class: "band", d: outline(piece.filter((row) => row.ci.p99_ns), x, y) })),
    ...LINES.flatMap(([field], i) => pieces(rows, field, stepNs).map((piece) => line(piece, field, i, x, y))),
  ];
  const missed = rows.filter((row) => row.completeness !== null && row.completeness < 1).length;
  const open = unsure.length - missed;
  const refused = refusals(rows);
  return [
    timeChart({
      key: about.key, title: "Percentiles over time", width: about.width, fromMs: ms(found.from_ns), toMs: ms(found.to_ns), stepMs: found.step_s * 1e3,
      y: { scale: (top, bottom) => logarithmic(low, high, bottom, top), ticks: durationTicks(low, high), format: duration },
      text: (at) => (byTime.has(at) ? `${count(byTime.get(at).count)} messages, ${values(byTime.get(at))}` : "no messages"),
      paint, marks: about.marks, zoom: about.zoom,
    }),
    h("ul", { class: "legend" }, LINES.map(([, label], i) => h("li", {}, s("svg", { width: 26, height: 10, "aria-hidden": "true" }, s("path", { class: `line line-${i}`, d: "M1 5H25" })), label)),
      h("li", {}, s("svg", { width: 18, height: 10, "aria-hidden": "true" }, s("rect", { class: "band", width: 18, height: 10 })), "95 % interval of p99"),
      unsure.length > 0 && h("li", {}, s("svg", { width: 18, height: 10, "aria-hidden": "true" }, s("rect", { fill: `url(#${id})`, width: 18, height: 10 })),
        [open && `${open} not complete yet`, missed && `${missed} with events missing`].filter(Boolean).join(", "))),
    refused.length > 0 && h("div", { class: "note" }, refused.map((one) => h("p", {}, one)), about.longer && h("p", {}, h("a", { href: about.longer, "data-key": `${about.key} longer` }, "Take a longer step"))),
    behind(`${about.key} table`, "Percentiles as a table", () => table("Percentiles over time", [
      { head: "Time (UTC)", row: true, cell: (row) => clock(ms(row.from_ns), true) },
      { head: "Messages", number: true, cell: (row) => count(row.count) },
      ...LINES.map(([field, label]) => ({ head: label, number: true, cell: (row) => (row[field] === null ? h("span", { title: row.refused[field] ?? "" }, "refused") : duration(row[field])) })),
      { head: "Complete", number: true, cell: (row) => share(row.completeness) },
    ], rows)),
  ];
}

const middle = (row) => ms((row.from_ns + row.to_ns) / 2);

function line(piece, field, i, x, y) {
  const points = piece.map((row) => `${x(middle(row)).toFixed(1)} ${y(row[field]).toFixed(1)}`);
  if (points.length > 1) return s("path", { class: `line line-${i}`, d: `M${points.join("L")}` });
  const [cx, cy] = points[0].split(" ");
  return s("circle", { class: `dot line-${i}`, cx, cy, r: 2.5 });
}

function outline(piece, x, y) {
  if (piece.length < 2) return "";
  const edge = (i) => piece.map((row) => `${x(middle(row)).toFixed(1)} ${y(row.ci.p99_ns[i]).toFixed(1)}`);
  return `M${edge(1).join("L")}L${edge(0).reverse().join("L")}z`;
}
