// One message: its stamps in order of time, what kept its threads from working, and where to look for the cause.

import { against, causes } from "./causes.js";
import { h, name, s, table } from "./dom.js";
import { instant, moment, write } from "./location.js";
import { nothing, Panel } from "./panel.js";
import { bar, legend } from "./stages.js";
import { clock, count, duration, ms, percent, share } from "./units.js";

const NEAR_MS = 120_000;
const WIDTH = 220;

const place = (stamp) => [name(stamp.point), h("span", { class: "note" }, " in ", name(stamp.service || "?"), " on ", name(stamp.host))];

/** What kept its threads from working over all its stamps, largest first: `[{ kind, culprit, ns }]`. */
export function kept(stamps) {
  const by = new Map();
  for (const part of stamps.flatMap((stamp) => stamp.parts ?? [])) {
    const key = `${part.kind}\u0000${part.culprit}`;
    by.set(key, { ...part, ns: (by.get(key)?.ns ?? 0) + part.ns });
  }
  return [...by.values()].sort((a, b) => b.ns - a.ns);
}

/** Which stamps lie within the message's time on a path; without a path all do. A fill may come long after the report. */
export function within(stamps, message) {
  if (!message) return stamps;
  const slack = 1_000; // epoch nanoseconds are held to a quarter of a microsecond here
  const [from, to] = [message.start_ns - slack, message.start_ns + message.e2e_ns + slack];
  return stamps.filter((stamp) => stamp.ts_ns >= from && stamp.ts_ns <= to);
}

/** The stamp that came the longest after the one before it. */
export function longest(stamps) {
  return stamps.reduce((best, stamp) => (stamp.step_ns > (best?.step_ns ?? 0) ? stamp : best), null);
}

function stepBar(stamp, total) {
  const scale = WIDTH / Math.max(1, total);
  const from = Math.min(WIDTH, (stamp.since_start_ns - stamp.step_ns) * scale);
  const svg = s("svg", { class: "bar", width: WIDTH + 2, height: 14, "aria-hidden": "true" }, s("rect", { class: "track", width: WIDTH, height: 14 }));
  let at = from;
  for (const part of stamp.parts ?? []) {
    svg.append(s("rect", { class: "seg seg-scheduler", x: at, y: 1, width: Math.max(0.5, part.ns * scale), height: 12 }, s("title", {}, `${part.kind} ${part.culprit} ${duration(part.ns)}`)));
    at += part.ns * scale;
  }
  const end = Math.min(WIDTH, stamp.since_start_ns * scale);
  svg.append(s("rect", { class: `seg ${stamp.handoff ? "seg-network" : "seg-compute"}`, x: at, y: 1, width: Math.max(1, end - at), height: 12 }));
  return svg;
}

function timeline({ found, paths }) {
  const own = new Set(within(found.stamps, paths[0]?.message));
  const shown = own.size ? [...own] : found.stamps;
  const total = shown.at(-1).since_start_ns;
  const slow = longest(shown.slice(own.size < found.stamps.length ? 1 : 0));
  const beyond = (stamp) => own.size > 0 && !own.has(stamp) && h("span", { class: "note" }, `not on path ${paths[0].shape.name}`);
  return [
    table("Stamps in order of time", [
      { head: "After", number: true, cell: (stamp) => duration(stamp.since_start_ns) },
      { head: "Where", row: true, cell: place },
      { head: "Since the one before", cell: (stamp) => [stepBar(stamp, total), h("span", { class: "step" }, ` ${duration(stamp.step_ns)} `), stamp === slow && h("span", { class: "tag warn" }, "longest"), beyond(stamp)] },
      { head: "Kept from working by", cell: (stamp) => (stamp.parts === null ? h("span", { class: "note" }, "not measured") : stamp.parts.length ? stamp.parts.map((part) => h("div", {}, `${part.kind.replaceAll("_", " ")} ${duration(part.ns)}`, part.culprit && [" behind ", name(part.culprit)])) : h("span", { class: "note" }, "nothing seen")) },
      { head: "Found before it", number: true, cell: (stamp) => count(stamp.depth) },
      { head: "Clock", cell: (stamp) => (stamp.error_ns === null ? "not known" : `± ${duration(stamp.error_ns)}`) },
      { head: "Said", cell: (stamp) => [stamp.outcome, stamp.mode, stamp.cache].filter((one) => one && !["unset", "normal", "ok"].includes(one)).join(", ") },
    ], found.stamps, { rowClass: (stamp) => (stamp === slow ? "chosen" : null) }),
    h("ul", { class: "legend" }, [["seg-compute", "on one thread"], ["seg-network", "handed over to another thread"], ["seg-scheduler", "kept from working"]].map(([kind, words]) => h("li", {}, s("svg", { width: 14, height: 12, "aria-hidden": "true" }, s("rect", { class: `seg ${kind}`, width: 14, height: 12 })), words))),
    found.events.length > 0 && h("div", {}, h("h3", {}, "What programs said"), table("Events", [
      { head: "Time (UTC)", cell: (one) => clock(ms(one.ts_ns)) },
      { head: "Who", row: true, cell: (one) => name(one.service) },
      { head: "Kind", cell: (one) => one.kind },
      { head: "Words", cell: (one) => h("span", { class: "long" }, name(one.body)) },
    ], found.events)),
  ];
}

/** Its figures on the paths that it is a message of: `[{ shape, message, latency }]`. */
async function onPaths(context, found) {
  const shapes = (await context.ask("/v1/paths")).paths;
  const asked = context.place.parameters.path;
  const tried = asked ? shapes.filter((shape) => shape.name === asked) : shapes.slice(0, 8);
  const from = instant(Math.floor(ms(found.from_ns)) - 1), to = instant(Math.ceil(ms(found.to_ns)) + 1);
  const near = nearby(context, found);
  const made = await Promise.all(tried.map(async (shape) => {
    const list = await context.ask("/v1/messages", { path: shape.name, from, to, limit: 1000 });
    const message = list.messages.find((one) => one.key === found.key);
    return message && { shape, message, latency: await context.ask("/v1/latency", { path: shape.name, ...near }) };
  }));
  return made.filter(Boolean);
}

/** The time that was looked at, where it was chosen and has the message in it; else two minutes around the message. */
function nearby(context, found) {
  const { from, to } = context.place.parameters;
  const chosen = from && to && moment(from, 0) <= ms(found.from_ns) && moment(to, 0) >= ms(found.to_ns);
  return chosen ? { from, to } : { from: instant(ms(found.from_ns) - NEAR_MS), to: instant(Math.min(Date.now(), ms(found.to_ns) + NEAR_MS)) };
}

function stagesOf({ shape, message, latency }, near, width) {
  const kinds = new Map(shape.stages.map((stage) => [stage.name, stage]));
  const usual = new Map(latency.stages.map((row) => [row.stage, row.p50_ns]));
  const largest = message.stages.reduce((best, stage) => ((stage.value_ns ?? 0) > (best?.value_ns ?? 0) ? stage : best), null);
  const address = (stage) => write("path", shape.name, { ...near, stage });
  return h("div", { class: "part" },
    h("h3", {}, "On path ", h("a", { href: write("path", shape.name, near) }, name(shape.name))),
    h("p", { class: "lead" }, `It took ${duration(message.e2e_ns)}`, message.e2e_error_ns === null ? ", clock error not known" : ` ± ${duration(message.e2e_error_ns)}`, ` and ended ${message.outcome}. `,
      largest && [name(largest.stage), ` took ${percent(largest.value_ns / message.e2e_ns)} of it: ${duration(largest.value_ns)}${usual.get(largest.stage) ? `, ${against(largest.value_ns, usual.get(largest.stage))}` : ""}.`]),
    bar(message.stages.map((stage) => ({ label: stage.stage, kind: kinds.get(stage.stage)?.kind, value: stage.value_ns ?? 0, title: `${stage.stage} ${duration(stage.value_ns)}` })), message.unattributed_ns, null, width - 2, `Stages of the message; most in ${largest?.stage}`),
    legend(),
    largest && h("p", {}, h("a", { class: "action", href: address(largest.stage), "data-key": "follow" }, "Look for the cause in ", name(largest.stage))),
    table("Stages of this message", [
      { head: "Stage", row: true, cell: (stage) => h("a", { href: address(stage.stage), title: kinds.get(stage.stage)?.sentence }, name(stage.stage)) },
      { head: "Took", number: true, cell: (stage) => (stage.value_ns === null ? "an end is missing" : duration(stage.value_ns)) },
      { head: "Usual (p50)", number: true, cell: (stage) => duration(usual.get(stage.stage)) },
      { head: "Budget", number: true, cell: (stage) => duration(kinds.get(stage.stage)?.budget_ns) },
      { head: "Clock", number: true, cell: (stage) => (stage.error_ns === null ? "not known" : `± ${duration(stage.error_ns)}`) },
      { head: "Host", cell: (stage) => name(stage.host) },
    ], message.stages),
    h("p", { class: "note" }, `Unattributed: ${duration(message.unattributed_ns)}.`));
}

/** The view. */
export function messageView(context) {
  const get = () => context.ask(`/v1/messages/${encodeURIComponent(context.place.name)}`);
  const on = async () => {
    const found = await get();
    return { found, paths: await onPaths(context, found) };
  };
  return {
    title: `Message ${context.place.name}`,
    lead: () => "",
    fixed: true,
    panels: [
      new Panel("Where its time went", {
        wide: true, load: on,
        draw: ({ found, paths }, width) => {
          const parts = kept(found.stamps);
          return [
            h("p", {}, `From ${clock(ms(found.from_ns), true)} UTC; ${count(found.stamps.length)} stamps; complete: ${share(found.completeness.share ?? found.completeness.known_share)}.`),
            parts.length > 0 && h("p", {}, "Kept from working: ", parts.slice(0, 3).map((part, i) => [i > 0 && ", ", `${part.kind.replaceAll("_", " ")} ${duration(part.ns)}`, part.culprit && [" behind ", name(part.culprit)]]), "."),
            paths.length ? paths.map((one) => stagesOf(one, nearby(context, found), width)) : nothing("It is no finished message of a path: on its way still, or only a part of one."),
          ];
        },
      }),
      new Panel("Timeline", { wide: true, load: on, draw: timeline }),
      new Panel("Causes at that time", {
        wide: true,
        load: async () => {
          const { found, paths } = await on();
          if (!paths.length) return null;
          const path = paths[0].shape.name;
          const near = nearby(context, found);
          return { path, near, why: await context.ask("/v1/explain", { path, ...near }) };
        },
        draw: (made) => (made === null ? [nothing("Without a path there is nothing to compare it with.")] : causes(made.why, (stage) => write("path", made.path, { ...made.near, stage }))),
      }),
    ],
  };
}
