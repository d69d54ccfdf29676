// A picture over time: axes, marks of changes, and a cursor that pointer and keyboard move and that zooms.
//
// To a screen reader it is a slider: each step of time is a value, and its words are what the column shows.

import { h, s } from "./dom.js";
import { linear, timeTicks } from "./scale.js";
import { clock } from "./units.js";

const LEFT = 62, RIGHT = 8, TOP = 8, BOTTOM = 22;
const cursors = new Map(); // by chart: where the cursor is and where a selection began, in ms; both outlive a refresh
let dragging = false;

/** Whether somebody is selecting just now: what is under the pointer must not be replaced. */
export function busy() {
  return dragging;
}

/** A hatching, for what is not known; `id` has to be unique in the document. */
export function hatching(id) {
  return s("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    s("rect", { class: "hatch-ground", width: 6, height: 6 }), s("rect", { class: "hatch-line", width: 2, height: 6 }));
}

/**
 * `y`: `{ scale(top, bottom), ticks, format }`; `text(startMs)` says a column in words; `paint(x, y, box)` gives elements;
 * `marks`: `[{ ms, text }]`; `zoom(fromMs, toMs)` is called with whole steps.
 */
export function timeChart({ key, title, width, height = 240, fromMs, toMs, stepMs, y, text, paint, marks = [], zoom }) {
  const inner = { left: LEFT, right: Math.max(width - RIGHT, LEFT + 60), top: TOP, bottom: height - BOTTOM };
  const x = linear(fromMs, toMs, inner.left, inner.right);
  const scale = y.scale(inner.top, inner.bottom);
  const steps = Math.max(1, Math.ceil((toMs - fromMs) / stepMs - 1e-9));
  const day = toMs - fromMs > 86_400_000;

  const picture = s("svg", { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const at of y.ticks) {
    const level = scale(at);
    picture.append(s("line", { class: "grid", x1: inner.left, x2: inner.right, y1: level, y2: level }),
      s("text", { class: "tick", x: inner.left - 6, y: level + 4, "text-anchor": "end" }, y.format(at)));
  }
  for (const at of timeTicks(fromMs, toMs, Math.max(2, Math.floor((inner.right - inner.left) / (day ? 130 : 85))))) {
    const words = day ? clock(at, true).slice(5, 16) : clock(at);
    const edge = x(at) + (day ? 38 : 27) > width; // its end would be cut off
    picture.append(s("text", { class: "tick", x: edge ? width - 1 : x(at), y: height - 6, "text-anchor": edge ? "end" : "middle" }, words));
  }
  picture.append(...paint(x, scale, inner));
  for (const mark of marks) {
    if (mark.ms < fromMs || mark.ms > toMs) continue;
    picture.append(s("g", {}, s("line", { class: "mark", x1: x(mark.ms), x2: x(mark.ms), y1: inner.top, y2: inner.bottom }),
      s("path", { class: "mark-head", d: `M${x(mark.ms) - 5} ${inner.top - 6}h10l-5 7z` }), s("title", {}, mark.text)));
  }
  const chosen = s("rect", { class: "selection", y: inner.top, height: inner.bottom - inner.top, visibility: "hidden" });
  picture.append(chosen, s("line", { class: "axis", x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom }));

  const readout = h("p", { class: "readout" });
  const slider = h("div", {
    class: "plot-frame", tabindex: "0", role: "slider", "aria-label": title, "data-key": key, "aria-valuemin": 0,
    "aria-valuemax": steps - 1, "aria-describedby": "chart-keys", "aria-orientation": "horizontal",
  }, picture);
  const column = (ms) => Math.min(steps - 1, Math.max(0, Math.floor((ms - fromMs) / stepMs + 1e-9)));
  const start = (index) => fromMs + index * stepMs;

  function show(cursor) {
    const [one, other] = [column(cursor.ms), column(cursor.anchor ?? cursor.ms)];
    const [low, high] = [Math.min(one, other), Math.max(one, other)];
    const end = Math.min(toMs, start(high + 1));
    const words = low === high
      ? `${clock(start(one), day)}: ${text(start(one))}`
      : `${clock(start(low), day)} to ${clock(end, day)} selected; Enter or release zooms`;
    chosen.setAttribute("x", x(start(low)));
    chosen.setAttribute("width", Math.max(1, x(end) - x(start(low))));
    chosen.setAttribute("visibility", "visible");
    slider.setAttribute("aria-valuenow", one);
    slider.setAttribute("aria-valuetext", words);
    readout.textContent = words;
    return [start(low), end];
  }

  function hide() {
    cursors.delete(key);
    chosen.setAttribute("visibility", "hidden");
    readout.textContent = "Drag over the picture to zoom, or focus it and use the arrow keys.";
    slider.setAttribute("aria-valuenow", steps - 1);
    slider.setAttribute("aria-valuetext", `${clock(start(steps - 1), day)}: ${text(start(steps - 1))}`);
  }

  slider.addEventListener("keydown", (event) => {
    const known = cursors.get(key);
    const now = column(known?.ms ?? toMs - 1);
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, ArrowDown: now - 1, ArrowUp: now + 1, PageDown: now - 10, PageUp: now + 10, Home: 0, End: steps - 1 }[event.key];
    if (event.key === "Enter" && known) {
      const [from, end] = show(known);
      cursors.delete(key);
      zoom(from, end);
    } else if (event.key === "Escape" && known) {
      hide();
    } else if (to !== undefined && !event.altKey && !event.ctrlKey && !event.metaKey) {
      const ms = start(Math.min(steps - 1, Math.max(0, known ? to : now)));
      const cursor = { ms, anchor: event.shiftKey ? known?.anchor ?? start(now) : undefined };
      cursors.set(key, cursor);
      show(cursor);
    } else return;
    event.preventDefault();
  });

  const under = (event) => x.back(Math.min(inner.right - 0.01, Math.max(inner.left, event.clientX - picture.getBoundingClientRect().left)));
  let anchor = null;
  slider.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    anchor = { x: event.clientX, ms: under(event) };
    dragging = true;
    slider.setPointerCapture(event.pointerId);
  });
  slider.addEventListener("pointermove", (event) => {
    const far = anchor !== null && Math.abs(event.clientX - anchor.x) > 3;
    if (anchor === null && cursors.has(key)) return; // the keyboard's cursor stays until it is let go
    show({ ms: under(event), anchor: far ? anchor.ms : undefined });
  });
  const release = (event) => {
    if (anchor === null) return;
    const far = Math.abs(event.clientX - anchor.x) > 3;
    const cursor = { ms: under(event), anchor: anchor.ms };
    anchor = null;
    dragging = false;
    if (far && event.type === "pointerup") zoom(...show(cursor));
  };
  slider.addEventListener("pointerup", release);
  slider.addEventListener("pointercancel", release);
  slider.addEventListener("pointerleave", () => anchor === null && !cursors.has(key) && hide());

  const before = cursors.get(key);
  if (before && before.ms >= fromMs && before.ms < toMs) show(before);
  else hide();
  return h("div", { class: "chart" }, slider, readout);
}

/** The keys of every chart, once per page, for whoever does not see them written elsewhere. */
export function keys() {
  return h("p", { id: "chart-keys", class: "unseen" },
    "Arrow keys move by one step, with Shift they select; Enter zooms in, Escape lets go. The table below has the numbers.");
}
