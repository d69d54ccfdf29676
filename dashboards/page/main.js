// Views by address, refreshed while somebody looks at them.

import { busy, keys } from "./chart.js";
import { controls, views } from "./controls.js";
import { h, refill } from "./dom.js";
import { age, STALE_S } from "./health.js";
import { instant, at, read, span, write } from "./location.js";
import { messageView } from "./message.js";
import { objectiveView } from "./objectives.js";
import { overview } from "./overview.js";
import { refused } from "./panel.js";
import { pathView } from "./path.js";
import { reportsView } from "./reports.js";
import { ask, Refusal } from "./rest.js";
import * as session from "./session.js";
import { clock, seconds } from "./units.js";

const VIEWS = { overview, path: pathView, message: messageView, objective: objectiveView, reports: reportsView };
const main = document.getElementById("main");
const banner = document.getElementById("banner");
const announce = document.getElementById("announce");

/** What panels know of where they are. Within one refresh an answer is asked for once, whoever needs it. */
class Context {
  constructor(place) {
    this.moveTo(place);
    this.zoom = (fromMs, toMs) => { location.hash = at(this.place, instant(fromMs), instant(toMs)); };
  }

  moveTo(place) {
    this.place = place;
    this.begin(new AbortController().signal);
  }

  begin(signal) {
    this.signal = signal;
    this.span = span(this.place.parameters);
    this.asked = new Map();
  }

  ask(route, parameters = {}) {
    const key = `${route} ${JSON.stringify(parameters)}`;
    if (!this.asked.has(key)) this.asked.set(key, ask(route, parameters, this.signal));
    return this.asked.get(key);
  }

  time() {
    return { from: this.span.from, to: this.span.to };
  }

  window() {
    return { from: this.place.parameters.from, to: this.place.parameters.to };
  }

  address(changes) {
    return write(this.place.view, this.place.name, { ...this.place.parameters, ...changes });
  }
}

let context = null;
let view = null;
let flight = null;
let timer = 0;
let ticks = 0;
let paused = false;
let who = { open: false, needed: false, scopes: [], name: "" };
let failedSince = 0;

const mayRead = () => who.scopes.includes("read");

function header() {
  views(document.getElementById("views"), context.place, mayRead());
  controls(document.getElementById("controls"), context.place, context.span, {
    paused, session: who,
    pause: () => { paused = !paused; header(); if (!paused) refresh(); },
    refresh,
    signOut: async () => { await session.leave().catch(() => {}); start(); },
  });
}

function range() {
  const { fromMs, toMs, live } = context.span;
  return `${clock(fromMs, true)} to ${live ? `${clock(toMs)}, now` : clock(toMs, true)} UTC`;
}

function build() {
  view = VIEWS[context.place.view](context);
  ticks = 0;
  document.title = `${view.title} – Tailsight`;
  view.heading = h("h1", { tabindex: "-1" }, h("bdi", { class: "name" }, view.title));
  view.lead_ = h("p", { class: "lead" });
  view.range = h("p", { class: "note range" });
  const parts = view.panels.map((panel) => panel.element);
  if (view.between) parts.splice(view.between.after, 0, view.between.element);
  refill(main, h("div", { class: "title" }, view.heading, view.lead_, view.range), view.before, h("div", { class: "panels" }, parts), keys());
}

function tell(errors) {
  const dead = errors.some((error) => error instanceof Refusal && error.status === 0);
  failedSince = dead ? failedSince || Date.now() : 0;
  banner.hidden = !dead;
  if (dead) banner.textContent = `The server has not answered since ${clock(failedSince)} UTC. What is shown is as it was then; the page tries again by itself.`;
}

async function refresh() {
  clearTimeout(timer);
  if (busy()) {
    schedule();
    return;
  }
  flight?.abort();
  const mine = (flight = new AbortController());
  context.begin(mine.signal);
  view.range.textContent = view.fixed ? "" : range();
  header();
  const due = view.panels.filter((panel) => panel.answer === undefined || ticks % panel.every === 0);
  const first = ticks === 0;
  ticks += 1;
  const asked = (panels) => panels.map((panel) => panel.refresh(mine.signal));
  const [, ...outcomes] = await Promise.all([view.tick?.(), ...asked(due.filter((panel) => !panel.late))]);
  if (!mine.signal.aborted) outcomes.push(...(await Promise.all(asked(due.filter((panel) => panel.late)))));
  if (mine.signal.aborted) return;
  main.classList.remove("moving");
  const errors = outcomes.filter(Boolean);
  if (errors.some((error) => error.status === 401)) {
    start("The session is over.");
    return;
  }
  tell(errors);
  view.lead_.textContent = view.lead();
  if (!errors.length && context.span.live && mayRead()) await stale();
  if (first) announce.textContent = errors.length ? `${view.title}: ${errors.length} parts could not be loaded.` : `${view.title} is loaded.`;
  main.dataset.ticks = ticks;
  schedule();
}

/** Old figures are said loudly: a page that stands still looks like a calm system. */
async function stale() {
  const old = age(await context.ask("/v1/paths"));
  if (old === null || old <= STALE_S || view.fixed) return;
  banner.hidden = false;
  banner.textContent = `The newest figures are ${seconds(old)} old: agents are silent, or the server is behind. Collectors and their state are on the overview.`;
}

function schedule() {
  clearTimeout(timer);
  if (paused || document.hidden || view.fixed) return;
  const length = context.span.toMs - context.span.fromMs;
  timer = setTimeout(refresh, length <= 3.6e6 && context.span.live ? 10_000 : 60_000);
}

function moved() {
  const place = read(location.hash);
  if (!mayRead() && place.view !== "reports") Object.assign(place, { view: "reports", name: "" });
  const same = context && view && place.view === context.place.view && place.name === context.place.name;
  if (same) {
    context.moveTo(place);
    ticks = 0;
    main.classList.add("moving");
  } else {
    const begun = context !== null;
    context = new Context(place);
    build();
    if (begun) {
      view.heading.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  }
  refresh();
}

async function start(why = "") {
  flight?.abort();
  clearTimeout(timer);
  context = view = null;
  try {
    who = await session.current();
  } catch (error) {
    refill(main, refused(error));
    timer = setTimeout(start, 5_000);
    return;
  }
  if (!who.open) {
    refill(document.getElementById("views"));
    refill(document.getElementById("controls"));
    refill(main, session.form(() => start(), why));
    document.title = "Sign in – Tailsight";
    document.getElementById("token").focus();
    return;
  }
  moved();
}

addEventListener("hashchange", () => { if (view) moved(); });
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && !paused && view && !view.fixed) refresh();
});
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => view?.panels.forEach((panel) => panel.redraw()), 150);
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is for views
  main.focus();
});
start();
