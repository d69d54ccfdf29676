// Signing in: the token is shown to the server once, for a cookie that no script can read.

import { h, refill } from "./dom.js";
import { refused } from "./panel.js";
import { ask, setCsrf, tell } from "./rest.js";

/** Whether questions are answered here, and by which scopes. */
export async function current(signal) {
  const found = await ask("/v1/session", {}, signal);
  setCsrf(found.csrf);
  return found;
}

/** End the session. */
export async function leave() {
  await tell("DELETE", "/v1/session");
  setCsrf("");
}

/** The form; `done()` is called when it worked. */
export function form(done, why = "") {
  const input = h("input", { id: "token", name: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false", "aria-describedby": "token-help" });
  const outcome = h("div", { role: "alert" });
  const button = h("button", { type: "submit" }, "Sign in");
  const element = h("form", {
    class: "sign-in",
    on: {
      submit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        refill(outcome);
        try {
          const found = await tell("POST", "/v1/session", { token: input.value.trim() });
          setCsrf(found.csrf);
          input.value = "";
          done(found);
        } catch (error) {
          refill(outcome, refused(error));
          input.focus();
        } finally {
          button.disabled = false;
        }
      },
    },
  },
  h("h1", { tabindex: "-1" }, "Sign in"),
  why && h("p", {}, why),
  h("p", { id: "token-help" }, "This server asks for a token with the scope ", h("code", {}, "read"), " (or ", h("code", {}, "executive"), ", for reports alone). Who runs it makes one: ", h("code", {}, "tailsight token create NAME --scope read"), ". The page does not keep it."),
  h("label", { for: "token" }, "Token"), input, button, outcome);
  return element;
}
