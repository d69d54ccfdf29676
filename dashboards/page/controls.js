// The header: views, a message by its key, the time looked at, refresh, colours, signing out.

import { h, refill } from "./dom.js";
import { at, DEFAULT_FROM, instant, moment, write } from "./location.js";

const TIMES = [["-5m", "5 minutes"], ["-15m", "15 minutes"], ["-1h", "1 hour"], ["-6h", "6 hours"], ["-1d", "1 day"], ["-7d", "7 days"], ["-30d", "30 days"]];
const THEMES = ["auto", "light", "dark"];

const go = (address) => { location.hash = address; };

/** The links between views. */
export function views(element, place, mayRead) {
  const { from, to, path } = place.parameters;
  const item = (view, words) => h("li", {}, h("a", { href: write(view, "", { from, to, path }), "aria-current": place.view === view ? "page" : null, "data-key": `view ${view}` }, words));
  const key = h("input", { id: "find", type: "search", size: 16, placeholder: "order:17 or 0x…", autocomplete: "off", spellcheck: "false" });
  refill(element, h("ul", {}, mayRead && item("overview", "Overview"), item("reports", "Reports")),
    mayRead && h("form", { class: "find", role: "search", on: { submit: (event) => { event.preventDefault(); if (key.value.trim()) go(write("message", key.value.trim(), { from, to, path })); } } },
      h("label", { for: "find" }, "Message"), key, h("button", { type: "submit", "data-key": "find go" }, "Open")));
}

function custom(place, span) {
  const field = (id, label, ms) => [h("label", { for: id }, label), h("input", { id, type: "text", size: 20, value: instant(ms), spellcheck: "false", autocomplete: "off" })];
  const problem = h("p", { role: "alert", class: "wrong" });
  const form = h("form", {
    class: "custom",
    on: {
      submit: (event) => {
        event.preventDefault();
        const now = Date.now();
        const [from, to] = ["time-from", "time-to"].map((id) => document.getElementById(id).value.trim());
        const [low, high] = [moment(from, now), to ? moment(to, now) : now];
        if (low === null || high === null) problem.textContent = "Write -15m, or 2026-11-20T10:00:00Z.";
        else if (low >= high) problem.textContent = "From has to lie before to.";
        else go(at(place, from, to));
      },
    },
  }, field("time-from", "From", span.fromMs), field("time-to", "To (empty: now)", span.toMs), h("button", { type: "submit" }, "Show"), problem);
  return h("details", { class: "other-time", "data-key": "other time" }, h("summary", { "data-key": "other time summary" }, "Other time"), form);
}

/** `acts`: `{ paused, pause(), refresh(), session, signOut() }`. */
export function controls(element, place, span, acts) {
  const length = span.toMs - span.fromMs;
  const button = (key, label, words, click, more) => h("button", { type: "button", "aria-label": label, title: label, "data-key": key, on: { click }, ...more }, words);
  const move = (by) => () => go(at(place, instant(span.fromMs + by * length), instant(Math.min(Date.now(), span.toMs + by * length))));
  const known = TIMES.some(([value]) => value === span.from) && span.live;
  const select = h("select", { id: "time", on: { change: () => select.value && go(at(place, select.value)) } },
    !known && h("option", { value: "", selected: true }, "chosen time"),
    TIMES.map(([value, words]) => h("option", { value, selected: known && value === span.from }, `last ${words}`)));
  const theme = document.documentElement.dataset.theme ?? "auto";
  refill(element,
    h("label", { for: "time", class: "unseen" }, "Time"), select,
    button("earlier", "Earlier", "◀", move(-0.5)),
    button("later", "Later", "▶", move(0.5), { disabled: span.live }),
    button("out", "Zoom out", "−", () => go(span.live ? at(place, `-${Math.round((length * 2) / 1e3)}s`) : at(place, instant(span.fromMs - length / 2), instant(Math.min(Date.now(), span.toMs + length / 2))))),
    button("live", "Back to now", "now", () => go(at(place, DEFAULT_FROM)), { disabled: span.live && span.from === DEFAULT_FROM }),
    custom(place, span),
    button("pause", acts.paused ? "Refresh by itself" : "Stop refreshing", acts.paused ? "resume" : "pause", acts.pause, { "aria-pressed": String(acts.paused) }),
    button("refresh", "Refresh now", "↻", acts.refresh),
    button("theme", `Colours: ${theme}; change`, { auto: "◐", light: "☀", dark: "☾" }[theme], () => { nextTheme(theme); controls(element, place, span, acts); }),
    acts.session?.name && button("sign out", `Sign out ${acts.session.name}`, "sign out", acts.signOut));
}

function nextTheme(theme) {
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("tailsight-theme");
    else localStorage.setItem("tailsight-theme", next);
  } catch {
    // Storage may be forbidden; the choice holds until the page is closed.
  }
}
