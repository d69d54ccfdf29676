// Why the tail is slow: the causes that `/v1/explain` names, or its reason for naming none; and recorded changes.

import { h, link, name, s, table } from "./dom.js";
import { nothing } from "./panel.js";
import { ago, clock, count, duration, ms, percent, seconds } from "./units.js";

/** The answer of `/v1/explain`; `open(stage)` is the address of a stage at that time. */
export function causes(found, open) {
  const list = found.causes.map((cause, i) => {
    const what = [cause.layer, cause.kind].filter(Boolean).join(", ");
    const [low, high] = cause.ci;
    return h("li", {},
      h("p", { class: "cause" }, h("a", { href: open(cause.stage), "data-key": `cause ${cause.stage} ${i}` }, name(cause.stage)), ` ${percent(cause.share)} of the added time `,
        h("span", { class: "note" }, `(95 %: ${percent(low)} to ${percent(high)}; ${what})`)),
      s("svg", { class: "bar", width: 220, height: 10, role: "img", "aria-label": `${percent(cause.share)}, between ${percent(low)} and ${percent(high)}` },
        s("rect", { class: "track", width: 220, height: 10 }), s("rect", { class: "fill", width: 220 * Math.min(1, Math.max(0, cause.share)), height: 10 }),
        s("path", { class: "interval", d: `M${220 * Math.max(0, low)} 5H${220 * Math.min(1, high)}` })),
      h("p", {}, cause.label && ["Most sets apart: ", name(cause.label), ". "], cause.evidence, cause.behind.length > 0 && ` Behind it waited ${cause.behind.join(", ")}.`));
  });
  const failed = Object.entries(found.failed).map(([outcome, n]) => `${n} ${outcome}`);
  return [
    h("p", { class: "lead" }, found.sentence),
    list.length > 0 && h("ol", { class: "causes" }, list),
    h("p", { class: "note" }, `${count(found.count)} messages, compared with ${found.compared_with === "body" ? "the middle of the same time" : `${count(found.against_count)} before`}. False alarms: at most ${percent(found.false_alarms)}.`,
      failed.length > 0 && ` Ended early: ${failed.join(", ")}.`),
    found.changes.length > 0 && h("div", {}, h("h3", {}, "Changes near"), h("ul", {}, found.changes.slice(0, 5).map((one) => h("li", {}, change(one), ` (${seconds(Math.abs(one.before_ns) / 1e9)} ${one.before_ns >= 0 ? "before" : "after"} its start)`)))),
  ];
}

function change(one) {
  return [h("span", { class: "tag" }, one.kind), " ", name(one.what), one.service && [" in ", name(one.service)], one.version && [" to ", name(one.version)], one.who && [" by ", name(one.who)]];
}

/** The answer of `/v1/changes`. */
export function changes(found) {
  if (!found.changes.length) return [nothing("No change is recorded in this time. ", h("code", {}, "tailsight changes record"), " records deploys, flags and configuration.")];
  return [table("Changes", [
    { head: "When (UTC)", row: true, cell: (one) => h("span", { title: ago(one.ts_ns) }, clock(ms(one.ts_ns), true)) },
    { head: "What", cell: (one) => [change(one), one.url && [" ", link(one.url, "more")]] },
    { head: "Host", cell: (one) => name(one.host) },
  ], found.changes), found.next && h("p", { class: "note" }, "There are more; choose less time to see older ones.")];
}

/** Marks of changes for pictures over time. */
export function marks(found) {
  return (found?.changes ?? []).map((one) => ({ ms: ms(one.ts_ns), text: `${clock(ms(one.ts_ns))} ${one.kind}: ${one.what}` }));
}

/** How far above the typical a value is, in words. */
export function against(value, usual) {
  return usual > 0 ? `${(value / usual).toFixed(value / usual < 10 ? 1 : 0)} times the median of ${duration(usual)}` : "";
}
