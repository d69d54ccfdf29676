// What is looked at is in the address: a view, a name, and parameters. So a link shows the same to whoever opens it.

export const DEFAULT_FROM = "-15m";
const SECONDS = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const VIEWS = ["path", "message", "objective", "reports"];
const KEPT = ["from", "to", "path", "stage", "step", "rollup"];

/** The place that an address (its hash) names; an unknown one is the overview. */
export function read(hash) {
  const [route, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, ...rest] = route.split("/");
  const given = new URLSearchParams(query);
  const parameters = Object.fromEntries(KEPT.filter((one) => given.get(one)).map((one) => [one, given.get(one)]));
  let called = "";
  try {
    called = decodeURIComponent(rest.join("/"));
  } catch {
    return { view: "overview", name: "", parameters };
  }
  if (!VIEWS.includes(view) || (view !== "reports" && !called)) return { view: "overview", name: "", parameters };
  return { view, name: called, parameters };
}

/** The address of a place. */
export function write(view, called = "", parameters = {}) {
  const query = new URLSearchParams();
  for (const one of KEPT) if (parameters[one] && !(one === "from" && parameters[one] === DEFAULT_FROM && !parameters.to)) query.set(one, parameters[one]);
  const route = view === "overview" ? "" : called ? `${view}/${encodeURIComponent(called)}` : view;
  const text = query.toString();
  return `#/${route}${text ? `?${text}` : ""}`;
}

/** A time as REST takes it (`-15m`, RFC 3339) in ms; null when it is neither. */
export function moment(text, nowMs) {
  const relative = /^-(\d+(?:\.\d+)?)([smhdw])$/.exec(text);
  if (relative) return nowMs - Number(relative[1]) * SECONDS[relative[2]] * 1e3;
  if (!/^\d{4}-\d\d-\d\dT/.test(text)) return null;
  const at = Date.parse(text);
  return Number.isNaN(at) ? null : at;
}

/** The time looked at: `{ from, to, fromMs, toMs, live }`; `from` and `to` as REST takes them, `live` when it ends now. */
export function span(parameters, nowMs = Date.now()) {
  const to = parameters.to && moment(parameters.to, nowMs) !== null ? parameters.to : undefined;
  const toMs = to ? moment(to, nowMs) : nowMs;
  let from = parameters.from ?? DEFAULT_FROM;
  if (moment(from, nowMs) === null || moment(from, nowMs) >= toMs) from = to ? instant(toMs - 9e5) : DEFAULT_FROM;
  return { from, to, fromMs: moment(from, nowMs), toMs, live: !to };
}

/** A moment as RFC 3339 in UTC, to the millisecond. */
export function instant(ms) {
  return new Date(Math.round(ms)).toISOString();
}

/** The same place at another time. */
export function at(place, from, to) {
  const { from: _from, to: _to, ...others } = place.parameters;
  return write(place.view, place.name, { ...others, from, ...(to ? { to } : {}) });
}
