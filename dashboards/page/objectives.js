// Objectives, the worst first; one objective with its rules and the course of its burn rate.

import { timeChart } from "./chart.js";
import { behind, h, link, name, s, table } from "./dom.js";
import { write } from "./location.js";
import { nothing, Panel } from "./panel.js";
import { linear, numberTicks, stepFor, stepText } from "./scale.js";
import { clock, count, ms, percent, seconds } from "./units.js";

const ORDER = ["firing", "acknowledged", "pending", "resolved", "inactive"];
const TONE = { firing: "bad", acknowledged: "bad", pending: "warn", resolved: "plain", inactive: "good" };

/** By state, then by what is left of the budget: the worst first. */
export function worstFirst(slos) {
  return [...slos].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.budget.remaining - b.budget.remaining || a.name.localeCompare(b.name));
}

function left(budget) {
  const part = Math.min(1, Math.max(0, budget.remaining));
  const tone = budget.remaining <= 0 ? "bad" : budget.remaining < 0.25 ? "warn" : "good";
  return [s("svg", { class: "bar", width: 90, height: 12, "aria-hidden": "true" }, s("rect", { class: "track", width: 90, height: 12 }), s("rect", { class: `fill ${tone}`, width: 90 * part, height: 12 })), ` ${percent(budget.remaining)}`];
}

const state = (one) => h("span", { class: `tag ${one.budget?.total === 0 ? "plain" : TONE[one.state] ?? "plain"}` }, one.budget?.total === 0 ? "no events yet" : one.state);
const ends = (budget) => (budget.remaining <= 0 ? "gone" : budget.exhausted_s === null ? "not at this rate" : `in ${seconds(budget.exhausted_s)}`);

/** The answer of `/v1/slos`. */
export function objectives(found, parameters) {
  if (!found.slos.length && found.at_ns === 0) return [nothing("Objectives are not judged yet; the server does that every 10 s.")];
  if (!found.slos.length) {
    return [nothing("No objective is in force. ", h("code", {}, "tailsight slo apply FILE"), " puts OpenSLO documents in force; ", h("code", {}, "deploy/examples/order-path.slo.yaml"), " has some for the demo.")];
  }
  const old = Date.now() / 1e3 - found.at_ns / 1e9;
  return [
    found.at_ns === 0 ? h("p", { class: "note" }, "Not judged yet; that happens every 10 s.") : old > 60 && h("p", { class: "tag bad" }, `Last judged ${seconds(old)} ago: the evaluation does not run.`),
    table("Objectives, worst first", [
      { head: "Objective", row: true, cell: (one) => [h("a", { href: write("objective", one.name, { from: parameters.from, to: parameters.to }), "data-key": `objective ${one.name}` }, name(one.display_name || one.name)), h("div", { class: "note" }, name(one.indicator))] },
      { head: "State", cell: state },
      { head: "Target", number: true, cell: (one) => `${+(100 * one.target).toFixed(4)} %` },
      { head: "Budget left", cell: (one) => left(one.budget) },
      { head: "Burn, 1 h", number: true, cell: (one) => one.budget.burn.toFixed(one.budget.burn < 10 ? 2 : 0) },
      { head: "Gone", cell: (one) => ends(one.budget) },
    ], worstFirst(found.slos)),
  ];
}

function rules(one) {
  return table("Rules", [
    { head: "Rule", row: true, cell: (rule) => name(rule.rule) },
    { head: "Tells", cell: (rule) => rule.severity },
    { head: "State", cell: (rule) => [state(rule), rule.since_ns > 0 && h("span", { class: "note" }, ` for ${seconds(Date.now() / 1e3 - rule.since_ns / 1e9)}`)] },
    { head: "Burn against its limit", cell: (rule) => rule.sides.map((side) => h("div", {}, `${seconds(side.window_s)}: ${side.burn.toFixed(2)} of ${side.factor} (${count(side.total - side.good)} bad of ${count(side.total)})`)) },
    { head: "Says", cell: (rule) => [rule.answer, rule.why && `: ${rule.why}`, rule.acknowledged_by && [", taken by ", name(rule.acknowledged_by)]] },
  ], one.rules);
}

function course(found, about) {
  if (!found.steps.length) return [nothing("No events in this time.")];
  const high = Math.max(1.2, ...found.steps.map((one) => one.burn)) * 1.05;
  const by = new Map(found.steps.map((one) => [ms(one.start_ns), one]));
  const paint = (x, y, box) => [
    s("line", { class: "budget", x1: box.left, x2: box.right, y1: y(1), y2: y(1) }),
    ...found.steps.map((one) => {
      const [from, to] = [x(ms(one.start_ns)), x(ms(one.end_ns))];
      return s("rect", { class: `fill ${one.burn > 1 ? "bad" : "good"}`, x: from, width: Math.max(1, to - from - 0.5), y: y(one.burn), height: Math.max(1, box.bottom - y(one.burn)) });
    }),
  ];
  const first = ms(found.steps[0].start_ns);
  const stepMs = found.step_s * 1e3;
  const fromMs = first - Math.max(0, Math.ceil((first - ms(found.from_ns)) / stepMs)) * stepMs; // steps lie on the server's grid
  return [
    timeChart({
      key: "burn", title: "Burn rate over time", width: about.width, height: 200, fromMs, toMs: Math.max(ms(found.to_ns), fromMs + stepMs), stepMs,
      y: { scale: (top, bottom) => linear(0, high, bottom, top), ticks: numberTicks(high), format: (value) => +value.toFixed(2) },
      text: (at) => (by.has(at) ? `burn ${by.get(at).burn.toFixed(2)}, ${count(by.get(at).total - by.get(at).good)} bad of ${count(by.get(at).total)}` : "no events"),
      paint, zoom: about.zoom,
    }),
    h("p", { class: "note" }, "A burn rate of 1, the line, uses the budget up exactly at the period's end."),
    behind("burn table", "Burn rate as a table", () => table("Burn rate", [
      { head: "Time (UTC)", row: true, cell: (one) => clock(ms(one.start_ns), true) },
      { head: "Burn", number: true, cell: (one) => one.burn.toFixed(3) },
      { head: "Bad", number: true, cell: (one) => count(one.total - one.good) },
      { head: "Events", number: true, cell: (one) => count(one.total) },
    ], found.steps)),
  ];
}

/** The view of one objective. */
export function objectiveView(context) {
  const route = `/v1/slos/${encodeURIComponent(context.place.name)}`;
  return {
    title: `Objective ${context.place.name}`,
    lead: () => "",
    panels: [
      new Panel("Budget and rules", {
        wide: true, load: () => context.ask(route),
        draw: (one) => [
          h("p", { class: "lead" }, name(one.description || one.indicator)),
          h("dl", { class: "facts" }, ...facts([["State", state(one)], ["Counts", name(one.indicator)], ["Target", `${+(100 * one.target).toFixed(4)} % in ${one.window}${one.rolling ? ", rolling" : ""}`],
            ["Budget left", left(one.budget)], ["Gone", ends(one.budget)], ["Events", `${count(one.budget.total - one.budget.good)} bad of ${count(one.budget.total)}`],
            ...(one.runbook ? [["Runbook", link(one.runbook, one.runbook, { "data-key": "runbook" })]] : [])])),
          rules(one),
        ],
      }),
      new Panel("Burn rate", {
        wide: true,
        load: () => context.ask(`${route}/burn`, { ...context.time(), step: stepText(stepFor(context.span.fromMs, context.span.toMs, 90)) }),
        draw: (found, width) => course(found, { width, zoom: context.zoom }),
      }),
    ],
  };
}

/** A list of names and values. */
export function facts(pairs) {
  return pairs.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value)));
}
