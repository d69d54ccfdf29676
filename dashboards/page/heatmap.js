// The latency heatmap: counts by time and latency, as `/v1/latency/heatmap` has them.

import { timeChart } from "./chart.js";
import { behind, h, s, table } from "./dom.js";
import { nothing } from "./panel.js";
import { durationTicks, logarithmic } from "./scale.js";
import { clock, count, duration, ms } from "./units.js";

const LEVELS = 8;

/** The shade of a count: 1 to 8, by its logarithm, so that single slow messages are seen beside thousands. */
export function shade(n, most) {
  return Math.max(1, Math.ceil((LEVELS * Math.log1p(n)) / Math.log1p(most)));
}

/** `found` is the answer; `about`: `{ key, width, zoom, marks }`. */
export function heatmap(found, about) {
  const cells = found.cells.filter((cell) => cell.high_ns > 0);
  const below = found.cells.reduce((sum, cell) => sum + (cell.high_ns > 0 ? 0 : cell.count), 0);
  if (!cells.length) {
    return [nothing(below ? `All ${count(below)} latencies are below zero: the clocks disagree by more than it takes.` : "No messages in this time.")];
  }
  const most = cells.reduce((best, cell) => Math.max(best, cell.count), 1);
  const low = cells.reduce((least, cell) => Math.min(least, Math.max(1, cell.low_ns)), Infinity);
  const high = cells.reduce((best, cell) => Math.max(best, cell.high_ns + 1), low * 1.5);
  const stepMs = found.step_s * 1e3;
  const columns = new Map();
  for (const cell of cells) {
    const at = ms(cell.start_ns);
    if (!columns.has(at)) columns.set(at, []);
    columns.get(at).push(cell);
  }
  const words = (at) => {
    const column = columns.get(at);
    if (!column) return "no messages";
    const total = column.reduce((sum, cell) => sum + cell.count, 0);
    const peak = column.reduce((best, cell) => (cell.count > best.count ? cell : best));
    return `${count(total)} messages, most from ${duration(peak.low_ns)} to ${duration(peak.high_ns)}, slowest below ${duration(column.at(-1).high_ns)}`;
  };
  const paint = (x, y) => {
    // One path per shade: a dozen elements, however many cells.
    const parts = Array.from({ length: LEVELS + 1 }, () => []);
    for (const cell of cells) {
      const at = ms(cell.start_ns);
      const [left, right] = [x(at), x(at + stepMs)];
      const [top, bottom] = [y(cell.high_ns + 1), y(Math.max(1, cell.low_ns))];
      parts[shade(cell.count, most)].push(`M${left.toFixed(1)} ${top.toFixed(1)}H${(right - 0.4).toFixed(1)}V${Math.max(bottom, top + 1).toFixed(1)}H${left.toFixed(1)}z`);
    }
    return parts.map((d, level) => d.length && s("path", { class: `heat heat-${level}`, d: d.join("") })).filter(Boolean);
  };
  const legend = h("p", { class: "legend" }, "1 message ",
    Array.from({ length: LEVELS }, (_, i) => s("svg", { width: 14, height: 12, "aria-hidden": "true" }, s("rect", { class: `heat heat-${i + 1}`, width: 14, height: 12 }))),
    ` ${count(most)} per cell; a step is ${found.step_s} s`);
  return [
    timeChart({
      key: about.key, title: `Heatmap of ${found.stage}`, width: about.width, fromMs: ms(found.from_ns), toMs: ms(found.to_ns), stepMs,
      y: { scale: (top, bottom) => logarithmic(low, high, bottom, top), ticks: durationTicks(low, high), format: duration },
      text: words, paint, marks: about.marks, zoom: about.zoom,
    }),
    legend,
    below > 0 && h("p", { class: "note" }, `${count(below)} latencies below zero are not drawn: the clocks disagree by more than it takes.`),
    behind(`${about.key} table`, "Heatmap as a table", () => table("Heatmap", [
      { head: "Time (UTC)", row: true, cell: (at) => clock(at, true) },
      { head: "Messages", number: true, cell: (at) => count(columns.get(at).reduce((sum, cell) => sum + cell.count, 0)) },
      { head: "Distribution", cell: (at) => words(at) },
    ], [...columns.keys()].sort((a, b) => a - b))),
  ];
}
