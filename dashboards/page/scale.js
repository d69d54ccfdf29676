// Scales, ticks and steps: plain arithmetic for the pictures.

const STEPS = [10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 604800];

/** The shortest step, in seconds, that divides a time into at most `most` columns. */
export function stepFor(fromMs, toMs, most) {
  return STEPS.find((one) => (toMs - fromMs) / 1e3 / one <= most) ?? STEPS.at(-1);
}

/** A step as REST writes it. */
export function stepText(seconds) {
  return `${seconds}s`;
}

/** A linear scale from values to pixels, with its inverse. */
export function linear(low, high, from, to) {
  const slope = (to - from) / (high - low || 1);
  const scale = (value) => from + (value - low) * slope;
  scale.back = (pixel) => low + (pixel - from) / slope;
  return scale;
}

/** A logarithmic scale; values below `low` lie at its edge. */
export function logarithmic(low, high, from, to) {
  const inner = linear(Math.log(low), Math.log(high), from, to);
  return (value) => inner(Math.log(Math.max(value, low)));
}

/** 1, 2 and 5 of every decade between two durations in ns; only decades when there are many. */
export function durationTicks(low, high) {
  const ticks = [];
  const wide = Math.log10(high / low) > 2.5;
  for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high; decade *= 10) {
    for (const m of wide ? [1] : [1, 2, 5]) if (decade * m >= low && decade * m <= high) ticks.push(decade * m);
  }
  return ticks;
}

/** About `wanted` round numbers from 0 to `high`. */
export function numberTicks(high, wanted = 4) {
  const rough = high / wanted || 1;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * decade).find((one) => one >= rough);
  const ticks = [];
  for (let at = 0; at <= high * 1.0001; at += step) ticks.push(at);
  return ticks;
}

const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

/** Whole times between two, in ms, at most `most` of them. */
export function timeTicks(fromMs, toMs, most) {
  const step = 1e3 * (TIMES.find((one) => (toMs - fromMs) / 1e3 / one <= most) ?? TIMES.at(-1));
  const ticks = [];
  for (let at = Math.ceil(fromMs / step) * step; at <= toMs; at += step) ticks.push(at);
  return ticks;
}
