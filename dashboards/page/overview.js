// The first minute: what is promised, where the time goes, how it moves, why, and whether it may be trusted.

import { causes, changes, marks } from "./causes.js";
import { h, name, refill, table } from "./dom.js";
import { clocks, delivery, strip } from "./health.js";
import { heatmap } from "./heatmap.js";
import { write } from "./location.js";
import { objectives } from "./objectives.js";
import { nothing, Panel, refused } from "./panel.js";
import { percentiles } from "./percentiles.js";
import { queues } from "./queues.js";
import * as reports from "./reports.js";
import { stepFor, stepText } from "./scale.js";
import { legend, meanBar, parts, value } from "./stages.js";
import { count, duration, percent, share } from "./units.js";

const SHOWN = 12; // paths whose figures are asked for; the others are linked

/** A heatmap, percentiles, causes, queues: the panels of one path, on the overview and on its own view. */
export function pathPanels(context, path, stage) {
  const reach = async () => ({ path: await path(), ...context.time(), rollup: context.place.parameters.rollup });
  const step = () => context.place.parameters.step ?? stepText(stepFor(context.span.fromMs, context.span.toMs, 60));
  const near = async () => marks(await context.ask("/v1/changes", { ...context.time(), limit: 100 }).catch(() => null));
  const about = (key, width, at) => ({ key, width, zoom: context.zoom, marks: at });
  const doubled = (found) => (found.step_s * 4e3 <= context.span.toMs - context.span.fromMs ? context.address({ step: stepText(found.step_s * 2) }) : null);
  const open = async () => {
    const to = await path();
    return (one) => write("path", to, { ...context.window(), stage: one });
  };
  const none = async () => (await path()) === "";
  const orNone = (load) => async () => ((await none()) ? null : load());
  const drawn = (draw) => (found, width) => (found === null ? [nothing("No path is declared; [paths.NAME] in tailsight.toml declares one.")] : draw(found, width));
  return {
    heat: new Panel("Latency heatmap", {
      load: orNone(async () => {
        const [found, at] = await Promise.all([context.ask("/v1/latency/heatmap", { ...(await reach()), stage: stage(), step: step(), per_octave: 8 }), near()]);
        return { found, at };
      }),
      draw: drawn(({ found, at }, width) => heatmap(found, about("heatmap", width, at))),
    }),
    lines: new Panel("Percentiles", {
      load: orNone(async () => {
        const [found, at] = await Promise.all([context.ask("/v1/latency/series", { ...(await reach()), stage: stage(), step: step() }), near()]);
        return { found, at };
      }),
      draw: drawn(({ found, at }, width) => percentiles(found, { ...about("percentiles", width, at), longer: doubled(found) })),
    }),
    why: new Panel("Why the tail is slow", {
      every: 3, late: true,
      load: orNone(async () => ({ found: await context.ask("/v1/explain", { path: await path(), ...context.time() }), open: await open() })),
      draw: drawn(({ found, open: to }) => causes(found, to)),
    }),
    depth: new Panel("Queue depth", {
      every: 3, late: true,
      load: orNone(async () => context.ask("/v1/queues", { path: await path(), ...context.time() })),
      draw: drawn(queues),
    }),
    changes: new Panel("Changes", { load: () => context.ask("/v1/changes", { ...context.time(), limit: 100 }), draw: changes }),
  };
}

async function latencies(context) {
  const shapes = (await context.ask("/v1/paths")).paths;
  const asked = shapes.slice(0, SHOWN);
  const found = await Promise.all(asked.map((shape) => context.ask("/v1/latency", { path: shape.name, ...context.time() }).catch((error) => ({ error }))));
  if (found.length && found.every((one) => one.error)) throw found[0].error;
  return { rows: asked.map((shape, i) => ({ shape, found: found[i] })), others: shapes.slice(SHOWN) };
}

/** The path that uses most of its budget, by its mean; the first one where none has both. */
export function worst(rows) {
  const used = ({ shape, found }) => {
    if (found.error) return -1;
    const { whole, budget } = parts(shape, found);
    return whole?.mean_ns && budget ? whole.mean_ns / budget : whole?.count ? 0 : -1;
  };
  return rows.reduce((best, row) => (best === null || used(row) > used(best) ? row : best), null)?.shape.name ?? "";
}

function paths(context, { rows, others }, width) {
  if (!rows.length) return [nothing("No path is declared; [paths.NAME] in tailsight.toml declares one. Spans that arrive by OpenTelemetry are learned by themselves.")];
  const wide = width > 640 ? Math.min(520, width - 440) : 180;
  const whole = (row) => (row.found.error ? null : row.found.stages.find((one) => one.stage === "end_to_end"));
  const address = (shape) => write("path", shape.name, context.window());
  const silent = rows.filter((row) => !row.found.error && !whole(row)?.count);
  return [
    table("Paths", [
      { head: "Path", row: true, cell: ({ shape }) => [h("a", { href: address(shape), title: shape.description, "data-key": `path ${shape.name}` }, name(shape.name))] },
      { head: "Where the mean goes", cell: (row) => (row.found.error ? h("span", { class: "wrong" }, row.found.error.message) : whole(row)?.count ? meanBar(row.shape, row.found, wide) : h("span", { class: "note" }, "no messages in this time")) },
      { head: "Mean", number: true, cell: (row) => duration(whole(row)?.mean_ns) },
      { head: "Of budget", number: true, cell: (row) => { const p = row.found.error ? null : parts(row.shape, row.found); return p?.budget && p.whole?.mean_ns ? percent(p.whole.mean_ns / p.budget) : "–"; } },
      { head: "p99", number: true, cell: (row) => (whole(row) ? value(whole(row), "p99_ns") : "–") },
      { head: "Messages", number: true, cell: (row) => count(whole(row)?.count) },
      { head: "Complete", number: true, cell: (row) => (row.found.error ? "–" : share(row.found.completeness.share ?? row.found.completeness.known_share)) },
    ], rows),
    legend(),
    h("p", { class: "note" }, "Each bar has a scale of its own; the mark is the sum of the stages' budgets. Means add up over stages, percentiles do not."),
    others.length > 0 && h("p", {}, "More: ", others.map((shape) => [h("a", { href: address(shape) }, name(shape.name)), " "])),
    silent.length === rows.length && nothing("No message of any path in this time. ", h("a", { href: context.address({ from: "-1d", to: undefined }) }, "Look at the last day")),
  ];
}

/** The view. */
export function overview(context) {
  let settled = "";
  const focus = async () => {
    const asked = context.place.parameters.path;
    if (asked) return asked;
    settled ||= worst((await latencies(context)).rows); // once: it must not jump about while somebody reads
    return settled;
  };
  const panels = pathPanels(context, focus, () => "end_to_end");
  const trust = h("div", { class: "trust", role: "region", "aria-label": "State of the data", "aria-live": "off" });
  const picker = h("div", { class: "picker" });
  const health = async () => {
    const [all, completeness, clockStates, collectors] = await Promise.all([
      context.ask("/v1/paths"), context.ask("/v1/completeness", context.time()), context.ask("/v1/clock", context.time()), context.ask("/v1/collectors"),
    ]);
    return { paths: all, completeness, clocks: clockStates, collectors };
  };
  const choose = async () => {
    const [shapes, chosen] = [(await context.ask("/v1/paths")).paths, await focus()];
    const select = h("select", { id: "focus", on: { change: () => { location.hash = context.address({ path: select.value }); } } }, shapes.map((shape) => h("option", { value: shape.name, selected: shape.name === chosen }, shape.name)));
    refill(picker, shapes.length > 0 && [h("label", { for: "focus" }, "Path shown below"), select, h("a", { href: write("path", chosen, context.window()), "data-key": "focus open" }, "Open it")]);
  };
  return {
    title: "Overview",
    lead: () => "",
    before: trust,
    between: { element: picker, after: 2 },
    tick: async () => {
      await Promise.all([
        health().then((found) => refill(trust, strip(found, context.span.live)), (error) => error.name !== "AbortError" && refill(trust, refused(error))),
        choose().catch(() => refill(picker)),
      ]);
    },
    panels: [
      new Panel("Objectives, worst first", { wide: true, load: () => context.ask("/v1/slos"), draw: (found) => objectives(found, context.window()) }),
      new Panel("Paths and their budgets", { wide: true, load: () => latencies(context), draw: (found, width) => paths(context, found, width) }),
      panels.heat, panels.lines, panels.why, panels.depth,
      new Panel("Completeness and collectors", { load: health, draw: delivery }),
      new Panel("Clocks", { load: async () => (await health()).clocks, draw: clocks }),
      panels.changes,
      new Panel("Reports", { every: 6, load: () => reports.load(context), draw: reports.reports }),
    ],
  };
}
