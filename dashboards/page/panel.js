// A part of the page that shows one answer, and says so while it loads, when it fails, and when it is out of date.

import { h, refill } from "./dom.js";
import { Refusal } from "./rest.js";
import { clock } from "./units.js";

let serial = 0;

/** A refusal in words, with what to do. */
export function refused(error) {
  const todo = error instanceof Refusal ? error.todo : "";
  return h("div", { class: "state wrong" }, h("p", {}, h("strong", {}, error.message)), todo && h("p", {}, todo));
}

/** A sentence in place of what is not there. */
export function nothing(...words) {
  return h("div", { class: "state" }, h("p", {}, words));
}

export class Panel {
  /** `load(signal)` gives an answer, `draw(answer, width)` elements; `every`: how many refreshes apart
   * it asks again; `late`: after the others, because its answer takes longer. */
  constructor(title, { load, draw, every = 1, late = false, wide = false, note }) {
    this.title = title;
    this.load = load;
    this.draw = draw;
    this.every = every;
    this.late = late;
    this.answer = undefined;
    const id = `panel-${(serial += 1)}`;
    this.state = h("p", { class: "panel-state", hidden: true });
    this.body = h("div", { class: "panel-body" });
    this.heading = h("h2", { id }, title);
    this.element = h("section", { class: wide ? "panel wide" : "panel", "aria-labelledby": id, "aria-busy": "true" },
      this.heading, note && h("p", { class: "note" }, note), this.state, this.body);
    refill(this.body, h("p", { class: "state loading" }, "Loading …"));
  }

  /** Ask and draw. The last answer stays when the next one does not come, with its age. */
  async refresh(signal) {
    this.element.setAttribute("aria-busy", "true");
    try {
      const answer = await this.load(signal);
      if (signal.aborted) return undefined;
      this.answer = answer;
      this.at = Date.now();
      this.state.hidden = true;
      this.element.classList.remove("stale");
      this.redraw();
      return null;
    } catch (error) {
      if (signal.aborted || error.name === "AbortError") return undefined;
      if (!(error instanceof Refusal)) console.error(error);
      this.fail(error);
      return error;
    } finally {
      if (!signal.aborted) this.element.setAttribute("aria-busy", "false");
    }
  }

  redraw() {
    if (this.answer !== undefined) refill(this.body, this.draw(this.answer, Math.max(240, this.body.clientWidth || 560)));
  }

  fail(error) {
    if (this.answer === undefined) {
      refill(this.body, refused(error));
      return;
    }
    this.element.classList.add("stale");
    this.state.hidden = false;
    this.state.textContent = `Out of date: as of ${clock(this.at)}. ${error.message}`;
  }
}
