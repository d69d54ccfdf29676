// The reports that the server keeps, where it makes any.

import { h, link, name, table } from "./dom.js";
import { nothing, Panel } from "./panel.js";
import { Refusal } from "./rest.js";
import { clock, ms } from "./units.js";

/** The list, or null where this server has no reports at all. */
export async function load(context) {
  try {
    return await context.ask("/v1/reports");
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) return null;
    throw error;
  }
}

/** A report's moments are ns or RFC 3339. */
const when = (value) => (typeof value === "number" ? clock(ms(value), true) : String(value ?? ""));

/** The answer of `/v1/reports`. */
export function reports(found) {
  if (found === null) return [nothing("This server makes no reports.")];
  const rows = found.reports ?? [];
  if (!rows.length) return [nothing("There is no report yet. ", h("code", {}, "tailsight report executive"), " writes one; [reports.NAME] in the configuration has them written by the clock.")];
  return [table("Reports", [
    { head: "Report", row: true, cell: (one) => link(`/v1/reports/${encodeURIComponent(one.id)}?format=html`, one.title || one.name || one.id) },
    { head: "Period", cell: (one) => name(one.period ?? (one.from_ns ? `${when(one.from_ns)} to ${when(one.to_ns)}` : "")) },
    { head: "Made (UTC)", cell: (one) => when(one.made_ns ?? one.created_ns ?? one.at_ns) },
    { head: "As", cell: (one) => (one.formats ?? []).map((format) => [link(`/v1/reports/${encodeURIComponent(one.id)}?format=${encodeURIComponent(format)}`, format), " "]) },
  ], rows)];
}

/** The view of all reports. */
export function reportsView(context) {
  return { title: "Reports", lead: () => "", panels: [new Panel("Reports", { wide: true, load: () => load(context), draw: reports })] };
}
