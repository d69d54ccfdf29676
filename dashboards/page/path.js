// One path: where its time goes by stage, how that moves, the slowest messages, and why.

import { h, name, refill, table } from "./dom.js";
import { write } from "./location.js";
import { pathPanels } from "./overview.js";
import { nothing, Panel } from "./panel.js";
import { bar, legend, meanBar, stageTable } from "./stages.js";
import { clock, count, duration, ms, percent } from "./units.js";

const STEPS = ["10s", "30s", "60s", "300s", "600s", "3600s"];

function slowest(context, found, width) {
  if (!found.messages.length) return [nothing("No finished message in this time, or it is kept no more: messages are kept for less time than counts. ", h("a", { href: context.address({ from: "-1h", to: undefined }) }, "Look at the last hour"))];
  const kinds = new Map(context.shape?.stages.map((stage) => [stage.name, stage.kind]));
  const wide = width > 640 ? Math.min(360, width - 420) : 160;
  const address = (one) => write("message", one.key, { ...context.window(), path: context.place.name });
  const most = (one) => one.stages.reduce((best, stage) => ((stage.value_ns ?? 0) > (best?.value_ns ?? 0) ? stage : best), null);
  return [
    table("Slowest messages", [
      { head: "Message", row: true, cell: (one) => h("a", { href: address(one), "data-key": `message ${one.key}`, class: "key" }, one.key) },
      { head: "Began (UTC)", cell: (one) => clock(ms(one.start_ns)) },
      { head: "Took", number: true, cell: (one) => h("span", { title: one.e2e_error_ns === null ? "clock error unknown" : `± ${duration(one.e2e_error_ns)}` }, duration(one.e2e_ns)) },
      { head: "Where", cell: (one) => bar(one.stages.map((stage) => ({ label: stage.stage, kind: kinds.get(stage.stage), value: stage.value_ns ?? 0, title: `${stage.stage} ${duration(stage.value_ns)}` })), one.unattributed_ns, null, wide, `most in ${most(one)?.stage ?? "no stage"}, ${duration(most(one)?.value_ns)}`) },
      { head: "Most in", cell: (one) => [name(most(one)?.stage ?? "–"), h("span", { class: "note" }, ` ${duration(most(one)?.value_ns)}`)] },
      { head: "Ended", cell: (one) => [one.outcome, one.mode !== "normal" && h("span", { class: "note" }, ` ${one.mode}`)] },
      { head: "Labels", cell: (one) => h("span", { class: "long" }, Object.entries(one.labels).map(([label, value]) => [name(`${label}=${value}`), " "])) },
    ], found.messages),
    h("p", { class: "note" }, "These bars share no scale; hover or open a message for its numbers."),
  ];
}

function budgets(found) {
  return [
    h("p", { class: "lead" }, found.sentence),
    table("Budgets", [
      { head: "Stage", row: true, cell: (row) => name(row.stage) },
      { head: "Budget", number: true, cell: (row) => duration(row.budget_ns) },
      { head: "Over it", number: true, cell: (row) => (row.over_share === null ? "–" : percent(row.over_share)) },
      { head: "Of the tail's time", number: true, cell: (row) => percent(row.tail_share) },
      { head: "p99 − p50", number: true, cell: (row) => duration(row.p99_less_p50_ns) },
    ], found.stages),
  ];
}

/** The view. */
export function pathView(context) {
  const path = context.place.name;
  const stage = () => context.place.parameters.stage ?? "end_to_end";
  const panels = pathPanels(context, async () => path, stage);
  const reach = () => ({ path, ...context.time(), rollup: context.place.parameters.rollup });
  const open = (one) => context.address({ stage: one === "end_to_end" ? undefined : one });
  const picker = h("div", { class: "picker" });
  const shape = async () => {
    const found = (await context.ask("/v1/paths")).paths.find((one) => one.name === path);
    context.shape = found;
    return found;
  };
  const choose = async () => {
    const found = await shape();
    if (!found) return;
    const select = h("select", { id: "stage", on: { change: () => { location.hash = open(select.value); } } },
      ["end_to_end", ...found.stages.map((one) => one.name).filter((one) => one !== "end_to_end")].map((one) => h("option", { value: one, selected: one === stage() }, one)));
    const chosen = context.place.parameters.step ?? "";
    const steps = STEPS.includes(chosen) || !chosen ? STEPS : [chosen, ...STEPS];
    const step = h("select", { id: "step", on: { change: () => { location.hash = context.address({ step: step.value || undefined }); } } },
      h("option", { value: "", selected: !chosen }, "automatic"), steps.map((one) => h("option", { value: one, selected: one === chosen }, one)));
    const rollup = h("input", { id: "rollup", type: "text", size: 18, value: context.place.parameters.rollup ?? "", placeholder: found.rollups.length ? `${found.rollups[0]}=…` : "none is counted", disabled: !found.rollups.length, autocomplete: "off", spellcheck: "false" });
    refill(picker, h("label", { for: "stage" }, "Stage"), select, h("label", { for: "step" }, "Step"), step,
      h("form", { on: { submit: (event) => { event.preventDefault(); location.hash = context.address({ rollup: rollup.value.trim() || undefined }); } } },
        h("label", { for: "rollup", title: `Counted: ${found.rollups.join(", ")}` }, "Only"), rollup, h("button", { type: "submit", "data-key": "rollup go" }, "Apply")),
      h("p", { class: "note sentence" }, found.stages.find((one) => one.name === stage())?.sentence));
  };
  return {
    title: `Path ${path}`,
    lead: () => context.shape?.description ?? "",
    between: { element: picker, after: 1 },
    tick: () => choose().catch(() => refill(picker)),
    panels: [
      new Panel("Stages and budget", {
        wide: true,
        load: async () => {
          const [found, latency] = await Promise.all([shape(), context.ask("/v1/latency", reach())]);
          return { shape: found, latency };
        },
        draw: ({ shape: found, latency }, width) => {
          const whole = latency.stages.find((one) => one.stage === "end_to_end");
          if (!whole?.count) return [nothing(`No message of this path in this time${found.computed_to_ns ? `; it is counted up to ${clock(ms(found.computed_to_ns))}` : ""}. `, h("a", { href: context.address({ from: "-1d", to: undefined }) }, "Look at the last day"))];
          return [h("p", { class: "lead" }, `${count(whole.count)} messages, on average ${duration(whole.mean_ns)}.`), meanBar(found, latency, width - 2), legend(), stageTable(found, latency, open, stage())];
        },
      }),
      panels.heat, panels.lines, panels.why, panels.depth,
      new Panel("Slowest messages", { wide: true, load: () => context.ask("/v1/messages", { path, ...context.time(), stage: stage(), limit: 15 }), draw: (found, width) => slowest(context, found, width) }),
      panels.changes,
      new Panel("Over the budget", { every: 6, late: true, load: () => context.ask("/v1/budgets", { path, ...context.time(), step: "1m" }), draw: budgets }),
    ],
  };
}
