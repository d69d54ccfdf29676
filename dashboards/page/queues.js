// Queue depth: how many others messages found before them, and what that did to their wait, as `/v1/queues` has it.

import { h, name, s, table } from "./dom.js";
import { nothing } from "./panel.js";
import { count, duration, percent } from "./units.js";

const depths = (row) => (row.high === null ? `${row.low} or more` : row.high === row.low ? `${row.low}` : `${row.low} to ${row.high}`);

function quantile(row, which) {
  const found = row.quantiles.find((one) => one.quantile === which);
  if (!found) return "–";
  if (found.value !== null) return duration(found.value);
  return h("span", { class: "refused", title: found.refused }, "refused");
}

function shareBar(part, label) {
  return s("svg", { class: "bar", width: 120, height: 12, role: "img", "aria-label": label }, s("rect", { class: "track", width: 120, height: 12 }), s("rect", { class: "fill", width: Math.max(part > 0 ? 1 : 0, 120 * part), height: 12 }));
}

/** Why the first refused wait is refused; empty where none is. */
const refusal = (all) => all?.depths.flatMap((row) => row.quantiles).find((one) => one.refused && one.count > 0)?.refused ?? "";

/** The answer of `/v1/queues` for a path. */
export function queues(found) {
  if (!found.queues.length) return [nothing("This path has no stage of class queue.")];
  return found.queues.map((queue) => {
    const all = queue.classes.find((one) => one.name === "all") ?? queue.classes[0];
    const total = all?.depths.reduce((sum, row) => sum + row.count, 0) ?? 0;
    const little = all?.little.find((one) => one.source === "events");
    return h("div", { class: "part" },
      h("h3", {}, name(queue.stage)),
      h("p", { class: "note" }, queue.between),
      queue.refused && nothing(queue.refused),
      all && all.depths.length > 0
        ? table(`Depth on arrival of ${queue.stage}`, [
            { head: "Found before them", row: true, cell: depths },
            { head: "Messages", number: true, cell: (row) => count(row.count) },
            { head: "Share", cell: (row) => [shareBar(row.count / total, percent(row.count / total)), ` ${percent(row.count / total)}`] },
            { head: "Wait p50", number: true, cell: (row) => quantile(row, 0.5) },
            { head: "Wait p99", number: true, cell: (row) => quantile(row, 0.99) },
          ], all.depths)
        : !queue.refused && nothing("No message states the depth that it found; stamp it with `depth=`."),
      refusal(all) && h("p", { class: "note" }, `Refused, for example: ${refusal(all)}.`),
      little && h("p", { class: "note" }, `On average ${little.length.toFixed(2)} waited, ${little.rate_s.toFixed(1)} came per second, and waited ${duration(little.wait_ns)}. Little's law: ${little.verdict}.`),
      queue.sentence && h("p", { class: "note" }, queue.sentence));
  });
}
