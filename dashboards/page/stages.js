// Where the time goes: the stages' means stacked, what no stage explains at the end, and the budget as a mark.
//
// Means add up over stages, percentiles do not; so the bar is of means, and the percentiles stand beside it.

import { hatching } from "./chart.js";
import { h, name, s, table } from "./dom.js";
import { count, duration, percent, share } from "./units.js";

const KINDS = ["network", "compute", "queue", "store", "scheduler"];
const HEIGHT = 26;
let serial = 0;

/** A path's parts from its shape (`/v1/paths`) and its latencies (`/v1/latency`). */
export function parts(shape, found) {
  const by = new Map(found.stages.map((row) => [row.stage, row]));
  const declared = shape.stages.filter((stage) => stage.kind !== null);
  const stages = declared.filter((stage) => by.has(stage.name)).map((stage) => ({ ...stage, row: by.get(stage.name) }));
  const budgets = declared.map((stage) => stage.budget_ns);
  return {
    stages,
    whole: by.get("end_to_end"),
    rest: by.get("unattributed"),
    budget: declared.length && budgets.every((one) => one !== null) ? budgets.reduce((a, b) => a + b, 0) : null,
  };
}

/** The stacked bar. `items`: `[{ label, kind, value, title }]`; `rest` is what no stage explains, in ns. */
export function bar(items, rest, budget, width, label) {
  const total = items.reduce((sum, one) => sum + Math.max(0, one.value), 0) + Math.max(0, rest);
  const scale = (width - 2) / Math.max(total, budget ?? 0, 1) / (budget && budget >= total ? 1.02 : 1);
  const id = `hatch-s${(serial += 1)}`;
  const svg = s("svg", { class: "bar", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label }, s("defs", {}, hatching(id)));
  let at = 1;
  const draw = (value, properties, title, text) => {
    const wide = Math.max(0, value) * scale;
    if (wide < 0.2) return;
    const box = s("g", {}, s("rect", { ...properties, x: at, y: 3, width: Math.max(0.5, wide - 1), height: HEIGHT - 6 }), s("title", {}, title));
    if (text && wide > text.length * 6.6 + 8) box.append(s("text", { class: "seg-label", x: at + wide / 2, y: HEIGHT / 2 + 4, "text-anchor": "middle" }, text));
    svg.append(box);
    at += wide;
  };
  for (const one of items) draw(one.value, { class: `seg seg-${KINDS.includes(one.kind) ? one.kind : "other"}` }, one.title, one.label);
  draw(rest, { fill: `url(#${id})`, class: "seg-rest" }, `unattributed ${duration(rest)}`, "");
  if (budget) svg.append(s("path", { class: "budget", d: `M${(1 + budget * scale).toFixed(1)} 0v${HEIGHT}` }, s("title", {}, `budget ${duration(budget)}`)));
  return svg;
}

/** The bar of a path's means. */
export function meanBar(shape, found, width) {
  const { stages, whole, rest, budget } = parts(shape, found);
  const items = stages.map((one) => ({
    label: one.name, kind: one.kind, value: one.row.mean_ns ?? 0,
    title: `${one.name}: mean ${duration(one.row.mean_ns)}${one.budget_ns === null ? "" : ` of ${duration(one.budget_ns)}`}`,
  }));
  const left = rest?.mean_ns ?? 0;
  const largest = items.reduce((best, one) => (one.value > (best?.value ?? -1) ? one : best), null);
  const label = `Mean ${duration(whole?.mean_ns)}${budget ? ` of a budget of ${duration(budget)}` : ""}; most in ${largest?.label ?? "no stage"} (${duration(largest?.value)}); unattributed ${duration(left)}`;
  return bar(items, left, budget, width, label);
}

/** What the colours mean. */
export function legend() {
  const id = `hatch-l${(serial += 1)}`;
  const swatch = (properties, ...more) => s("svg", { width: 14, height: 12, "aria-hidden": "true" }, more, s("rect", { width: 14, height: 12, ...properties }));
  return h("ul", { class: "legend" }, KINDS.map((kind) => h("li", {}, swatch({ class: `seg seg-${kind}` }), kind)),
    h("li", {}, swatch({ fill: `url(#${id})` }, s("defs", {}, hatching(id))), "unattributed"),
    h("li", {}, s("svg", { width: 8, height: 14, "aria-hidden": "true" }, s("path", { class: "budget", d: "M4 0V14" })), "budget"));
}

/** A percentile, or that it is refused and why. */
export function value(row, field) {
  if (row[field] !== null && row[field] !== undefined) return duration(row[field]);
  const why = row.refused?.[field];
  return why ? h("span", { class: "refused", title: why }, `needs ${/at least ([\d,]+)/.exec(why)?.[1] ?? "more"}`) : "–";
}

/** The stages with their percentiles; `open(stage)` is the address of a stage. */
export function stageTable(shape, found, open, chosen) {
  const shapes = new Map(shape.stages.map((stage) => [stage.name, stage]));
  const over = (row) => {
    const budget = shapes.get(row.stage)?.budget_ns;
    return budget && row.p99_ns !== null && row.p99_ns > budget;
  };
  return [
    table("Stages and percentiles", [
      { head: "Stage", row: true, cell: (row) => h("a", { href: open(row.stage), title: row.sentence, "aria-current": row.stage === chosen ? "true" : null, "data-key": `stage ${row.stage}` }, name(row.stage)) },
      { head: "Class", cell: (row) => shapes.get(row.stage)?.kind ?? "" },
      { head: "Messages", number: true, cell: (row) => count(row.count) },
      { head: "Mean", number: true, cell: (row) => duration(row.mean_ns) },
      { head: "Budget", number: true, cell: (row) => duration(shapes.get(row.stage)?.budget_ns) },
      ...[["p50_ns", "p50"], ["p90_ns", "p90"], ["p99_ns", "p99"], ["p999_ns", "p99.9"], ["p9999_ns", "p99.99"]].map(([field, head]) => ({
        head, number: true, cell: (row) => (field === "p99_ns" && over(row) ? h("strong", { class: "bad", title: "over its budget" }, duration(row.p99_ns), " ▲") : value(row, field)),
      })),
      { head: "Max", number: true, cell: (row) => duration(row.max_ns) },
      { head: "Complete", number: true, cell: (row) => share(row.completeness) },
    ], found.stages, { rowClass: (row) => (row.stage === chosen ? "chosen" : null) }),
    remarks(found.stages),
  ];
}

function remarks(rows) {
  const whole = rows.find((row) => row.stage === "end_to_end");
  const sentences = [];
  if (whole?.unfinished) sentences.push(`${count(whole.unfinished)} messages never reached the path's end and have no latency here.`);
  if (whole?.headless) sentences.push(`${count(whole.headless)} messages lack their first stamp and are in no other number.`);
  for (const row of rows) {
    if (row.negative) sentences.push(`${row.stage}: ${count(row.negative)} latencies are below zero (${percent(row.negative / row.count)}): the clocks disagree by more than it takes.`);
    else if (row.below_resolution > row.count / 2) sentences.push(`${row.stage}: most latencies are smaller than their clock error: below clock resolution.`);
    else if (row.error_unknown > 0 && row.stage === "end_to_end") sentences.push(`Of ${percent(row.error_unknown / row.count)} of the messages no clock bound is known.`);
  }
  const refused = rows.some((row) => Object.keys(row.refused).length > 0);
  if (refused) sentences.push("“needs 3,688” means that so few messages cannot say that percentile; take more time.");
  return sentences.length > 0 && h("ul", { class: "note" }, sentences.map((one) => h("li", {}, one)));
}
