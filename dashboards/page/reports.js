// The reports that the server keeps, where it makes any.

import { h, link, name, table } from "./dom.js";
import { nothing, Panel } from "./panel.js";
import { Refusal } from "./rest.js";
import { ago, clock, ms } from "./units.js";

/** The list, or null where this server has no reports at all. */
export async function load(context) {
  try {
    return await context.ask("/v1/reports");
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return null;
    throw error;
  }
}

const address = (one, format) => `/v1/reports/${encodeURIComponent(one.id)}?format=${encodeURIComponent(format)}`;

/** The answer of `/v1/reports`. */
export function reports(found) {
  if (found === null) return [nothing("This server makes no reports.")];
  return [
    found.making && h("p", { class: "note" }, "Being made: ", name(found.making)),
    found.failed.map((one) => h("p", { class: "wrong" }, name(one.id), ` failed ${ago(one.at_ns)}: `, name(one.error))),
    found.reports.length === 0
      ? nothing("There is no report yet. ", h("code", {}, "tailsight report executive"), " writes one; ", h("code", {}, "[reports.NAME]"), " in the configuration has them made by the clock.")
      : table("Reports", [
          { head: "Report", row: true, cell: (one) => [link(address(one, one.formats[0]), one.title, { "data-key": `report ${one.id}` }), h("div", { class: "note" }, name(one.headline[0] ?? ""))] },
          { head: "Period", cell: (one) => [name(one.period), h("div", { class: "note" }, `to ${clock(ms(one.to_ns), true)}`)] },
          { head: "Made (UTC)", cell: (one) => [clock(ms(one.made_ns), true), h("div", { class: "note" }, "by ", name(one.made_by))] },
          { head: "As", cell: (one) => one.formats.map((format) => [link(address(one, format), format), " "]) },
        ], found.reports),
  ];
}

/** The view of all reports. */
export function reportsView(context) {
  return { title: "Reports", lead: () => "", panels: [new Panel("Reports", { wide: true, load: () => load(context), draw: reports })] };
}
