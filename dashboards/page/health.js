// May what is shown be trusted: how old it is, what is missing from it, and how well the clocks are known.

import { h, name, table } from "./dom.js";
import { nothing } from "./panel.js";
import { ago, clock, count, duration, ms, seconds, share } from "./units.js";

export const STALE_S = 60;

const badge = (kind, words, title) => h("li", { class: `badge ${kind}`, title }, h("span", { class: "unseen" }, { good: "good: ", warn: "attention: ", bad: "wrong: ", plain: "" }[kind]), words);

/** The age of the newest computed window of all paths in seconds, or null. */
export function age(paths, nowMs = Date.now()) {
  const newest = Math.max(...paths.paths.map((path) => path.computed_to_ns ?? 0), 0);
  return newest ? nowMs / 1e3 - newest / 1e9 : null;
}

/** One line: newest window, completeness, who is behind, clocks. */
export function strip({ paths, completeness, clocks, collectors }, live) {
  const old = age(paths);
  const c = completeness.completeness;
  const known = c.share ?? c.known_share;
  const bound = clocks.clocks.filter((one) => one.in_use);
  const without = bound.filter((one) => one.error_ns === null).length;
  const silent = collectors.collectors.filter((one) => !one.live && one.status !== "stopped");
  const poor = collectors.collectors.filter((one) => one.live && one.status !== "running");
  return h("ul", { class: "badges" },
    old === null ? badge("warn", "nothing is computed yet", "A window is computed some seconds after it ends.")
      : badge(live && old > STALE_S ? "bad" : "good", `newest figures ${seconds(old)} old`),
    known === null ? badge("warn", "completeness unknown") : badge(known < 1 ? "bad" : "good", `${share(known)} of ${count(c.produced)} events arrived`),
    c.waiting_for.length > 0 && badge(live ? "plain" : "warn", `not all in yet: ${c.waiting_for.join(", ")}`, c.known_to_ns ? `All has landed up to ${clock(ms(c.known_to_ns))}` : ""),
    bound.length === 0 ? badge("warn", "no clock is watched")
      : without ? badge("warn", `${without === bound.length ? "no" : "not every"} clock has a bound to UTC`) : badge("good", `clocks within ${duration(Math.max(...bound.map((one) => one.error_ns)))} of UTC`),
    silent.length > 0 && badge("bad", `silent: ${silent.map((one) => one.name).join(", ")}`),
    poor.length > 0 && badge("warn", `${poor.length} collectors see less than they could`));
}

/** Completeness of the time, and the collectors. */
export function delivery({ completeness, collectors }) {
  const c = completeness.completeness;
  const words = c.share !== null ? `${share(c.share)} of ${count(c.produced)} events of this time have arrived; ${count(c.missing)} are missing.`
    : c.known_share !== null ? `Up to ${clock(ms(c.known_to_ns))}, ${share(c.known_share)} has arrived. Later events are on their way.`
    : "Nothing can be said of this time: no collector lived in it, or none has landed anything yet.";
  return [
    h("p", { class: "lead" }, words),
    collectors.collectors.length === 0 ? nothing("No collector has reported. ", h("code", {}, "tailsight agent"), " starts them.")
      : table("Collectors", [
          { head: "Collector", row: true, cell: (one) => [name(one.name), h("span", { class: "note" }, "@", name(one.host))] },
          { head: "State", cell: (one) => h("span", { class: `tag ${one.live && one.status === "running" ? "good" : one.status === "stopped" ? "plain" : "bad"}` }, one.live ? one.status : one.status === "stopped" ? "stopped" : `last heard ${ago(one.last_ns)}`) },
          { head: "Behind", number: true, cell: (one) => (one.live ? seconds(Math.max(0, (collectors.at_ns - one.watermark_ns) / 1e9)) : "–") },
          { head: "What it lacks", cell: (one) => h("span", { class: "long" }, one.reason) },
        ], collectors.collectors),
  ];
}

/** Clocks by host, and what happened to them. */
export function clocks(found) {
  if (!found.clocks.length) return [nothing("No clock was watched in this time; the collector ", h("code", {}, "clock"), " does it.")];
  const rows = found.clocks.filter((one) => one.in_use || one.error_ns !== null);
  return [
    table("Clocks", [
      { head: "Host", row: true, cell: (one) => name(one.host) },
      { head: "Who says", cell: (one) => [one.source, one.in_use && h("span", { class: "note" }, " (in use)")] },
      { head: "From UTC", number: true, cell: (one) => (one.error_ns === null ? h("span", { class: "tag warn" }, "not known") : `± ${duration(one.error_ns)}`) },
      { head: "Worst", number: true, cell: (one) => (one.max_error_ns === null ? "–" : `± ${duration(one.max_error_ns)}`) },
      { head: "Steps, losses", number: true, cell: (one) => `${one.steps}, ${one.losses}` },
    ], rows.length ? rows : found.clocks),
    found.events.length > 0 && h("ul", { class: "note" }, found.events.slice(0, 5).map((one) => h("li", {}, `${clock(ms(one.ts_ns))} `, name(one.host), ` ${one.event.replace("_", " ")}${one.step_ns === null ? "" : ` by ${duration(one.step_ns)}`}`))),
  ];
}
