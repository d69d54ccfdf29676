// Questions to the server, a few at a time, and its refusals in words that say what to do.

// The server lets one client ask the store four questions at a time; two are left for whoever else is on this machine.
const AT_ONCE = 2;
const LIGHT = /^\/v1\/(session|paths|slos|alerts)$/; // answered from memory
const TRIES = 8;
let running = 0;
const waiting = [];
let csrf = "";

/** The session's CSRF token, for requests that change something. */
export function setCsrf(text) {
  csrf = text;
}

/** A refusal: `status` 0 means that the server did not answer. `todo` says what would help. */
export class Refusal extends Error {
  constructor(status, kind, detail, id = "", retryAfter = 0) {
    super(detail);
    Object.assign(this, { status, kind, id, retryAfter });
  }

  get todo() {
    if (this.status === 0) return "Is the server running? `tailsight up` starts it. The page tries again by itself.";
    if (this.status === 401) return "Sign in with a token that has the scope read.";
    if (this.status === 403) return "Sign in with another token; `tailsight token create` makes one.";
    if (this.kind === "too-many-rows" || this.kind === "query-too-costly") return "Choose less time or a longer step.";
    if (this.status === 404) return "";
    if (this.status === 422) return "Correct the address, or go back to the overview.";
    if (this.status === 429 || this.status === 503) return "The page tries again by itself.";
    return this.id ? `The server's log has it under ${this.id}.` : "";
  }
}

async function slot() {
  if (running < AT_ONCE) {
    running += 1;
    return;
  }
  await new Promise((resolve) => waiting.push(resolve));
}

function free() {
  const next = waiting.shift();
  if (next) next();
  else running -= 1;
}

const pause = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

async function once(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "unreachable", "The server does not answer.");
  }
  const kind = answer.headers.get("content-type") ?? "";
  const body = /json/.test(kind) ? await answer.json() : null;
  if (answer.ok) return body;
  const short = (body?.type ?? "").split(":").at(-1);
  const wait = Number(answer.headers.get("retry-after")) || 0;
  throw new Refusal(answer.status, short, body?.detail ?? `The server answered ${answer.status}.`, body?.id, wait);
}

/** The answer to GET `path` with `parameters`; those without a value are left out. Throws Refusal. */
export async function ask(path, parameters = {}, signal) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== undefined && value !== ""));
  const text = query.toString();
  const light = LIGHT.test(path);
  if (!light) await slot();
  try {
    for (let tried = 1; ; tried += 1) {
      signal?.throwIfAborted();
      try {
        return await once(text ? `${path}?${text}` : path, { signal, credentials: "same-origin", headers: { Accept: "application/json" } });
      } catch (error) {
        // Busy, or a store that is being opened again: it says itself when to come back.
        const again = error instanceof Refusal && [429, 503].includes(error.status) && error.retryAfter <= 2;
        if (!again || tried >= TRIES) throw error;
        await pause(error.retryAfter * 1e3 || 500, signal);
      }
    }
  } finally {
    if (!light) free();
  }
}

/** Change something: POST or DELETE with a JSON body. Throws Refusal. */
export function tell(method, path, body) {
  const headers = { Accept: "application/json", ...(csrf ? { "tailsight-csrf": csrf } : {}) };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return once(path, { method, credentials: "same-origin", headers, body: body === undefined ? undefined : JSON.stringify(body) });
}
