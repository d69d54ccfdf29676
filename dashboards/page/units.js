// Numbers as people read them, the same way as in the terminal.

const UNITS = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];

/** A duration with three significant digits and the unit that fits it; "–" for none. */
export function duration(ns) {
  if (ns === null || ns === undefined) return "–";
  const [size, unit] = UNITS.find(([one]) => Math.abs(ns) >= one) ?? UNITS[3];
  const value = ns / size;
  const digits = size === 1 ? 0 : Math.max(0, 3 - String(Math.trunc(Math.abs(value))).length);
  return `${value.toFixed(digits)} ${unit}`;
}

/** Seconds in the unit that fits: 42 s, 3 min, 5.2 h, 12 days. */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  const [size, unit] = [[86400, "days"], [3600, "h"], [60, "min"], [1, "s"]].find(([one]) => value >= one * 1.5) ?? [1, "s"];
  const n = value / size;
  return `${n < 10 && size > 1 ? n.toFixed(1) : Math.round(n)} ${unit}`;
}

/** A share in percent that never rounds a loss away; "unknown" for none. */
export function share(value) {
  if (value === null || value === undefined) return "unknown";
  return value < 1 ? `${Math.min(100 * value, 99.999).toFixed(3)} %` : "100 %";
}

/** A share in percent for reading: two digits or three, and never rounded to the whole or to nothing. */
export function percent(value) {
  if (value === null || value === undefined) return "–";
  const n = 100 * value;
  const [size, edge] = [Math.abs(n), Math.abs(100 - n)];
  if (n === 0 || edge === 0) return `${n} %`;
  if (size < 0.1) return `${n < 0 ? "> −" : "< "}0.1 %`;
  if (edge < 0.1) return n < 100 ? "> 99.9 %" : "100.1 %";
  return `${size < 10 || edge < 1 ? n.toFixed(1) : Math.round(n)} %`;
}

/** A whole number with separators; "–" for none. */
export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en-US");
}

const two = (n) => String(n).padStart(2, "0");

/** A time of day, UTC: 17:20:05; with the day when `day`. */
export function clock(ms, day = false) {
  const at = new Date(ms);
  const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
  return day ? `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())} ${time}` : time;
}

/** Epoch nanoseconds as milliseconds; JSON numbers hold them to a quarter of a microsecond, which pictures need not. */
export function ms(ns) {
  return ns / 1e6;
}

/** How long ago, in words. */
export function ago(ns, nowMs = Date.now()) {
  const past = nowMs / 1e3 - ns / 1e9;
  return past < 0 ? "now" : `${seconds(past)} ago`;
}
