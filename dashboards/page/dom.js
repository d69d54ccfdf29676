// Elements from values. Text is always text: nothing here, or anywhere in the page, takes a string for markup.

const SVG = "http://www.w3.org/2000/svg";

/** An address that may be followed: one of ours, or http(s). Anything else (javascript:, data:) is none. */
export function safeLink(href) {
  if (/^(#\/|\/(?!\/))/.test(href)) return href;
  try {
    return ["https:", "http:"].includes(new URL(href).protocol) ? href : null;
  } catch {
    return null;
  }
}

function put(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (/^on|^style$|html$/i.test(name)) {
      throw new TypeError(`${name} is not set as an attribute here`);
    } else if (name === "href") {
      const link = safeLink(String(value));
      if (link !== null) element.setAttribute("href", link);
    } else if (name === "value" || name === "checked" || name === "selected") {
      element[name] = value;
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** An HTML element. */
export function h(tag, properties, ...children) {
  return put(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function s(tag, properties, ...children) {
  return put(document.createElementNS(SVG, tag), properties, children);
}

/** A name that others gave: kept apart from what is around it, whatever direction it is written in. */
export function name(text, properties) {
  return h("bdi", { class: "name", ...properties }, text);
}

/** A link whose words may be others' names. */
export function link(href, text, properties) {
  const foreign = !/^[#/]/.test(href);
  return h("a", { href, ...(foreign ? { rel: "noopener noreferrer", target: "_blank" } : {}), ...properties }, name(text));
}

/** Replace what an element holds; what was open stays open, and the focus stays where it was (both by `data-key`). */
export function refill(element, ...children) {
  const open = new Set([...element.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  const active = element.contains(document.activeElement) ? document.activeElement : null;
  const focused = active?.dataset.key ?? active?.id ?? "";
  const scrolled = [...element.querySelectorAll(".scroll[data-key]")].map((one) => [one.dataset.key, one.scrollLeft]);
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  for (const one of element.querySelectorAll("details[data-key]")) if (open.has(one.dataset.key)) one.open = true;
  for (const [key, left] of scrolled) {
    const found = element.querySelector(`.scroll[data-key="${CSS.escape(key)}"]`);
    if (found) found.scrollLeft = left;
  }
  if (!focused) return;
  const again = element.querySelector(`[data-key="${CSS.escape(focused)}"], #${CSS.escape(focused)}`);
  again?.focus({ preventScroll: true });
}

/** A table: `columns` are `{ head, cell(row), number?, row? }`; a column with `row` names its rows. */
export function table(caption, columns, rows, { key, rowClass, captionSeen = false } = {}) {
  const head = h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.number ? "number" : null }, c.head)));
  const lines = rows.map((row) =>
    h("tr", { class: rowClass?.(row) ?? null }, columns.map((c) =>
      c.row
        ? h("th", { scope: "row" }, c.cell(row))
        : h("td", { class: c.number ? "number" : null }, c.cell(row)),
    )),
  );
  // Scrolled by keyboard too: a region that scrolls has to be reachable.
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, "data-key": key ?? caption },
    h("table", {}, h("caption", { class: captionSeen ? null : "unseen" }, caption), h("thead", {}, head), h("tbody", {}, lines)));
}

/** A table that is made when it is asked for: the numbers behind a picture. */
export function behind(key, words, make) {
  const details = h("details", { class: "behind", "data-key": key }, h("summary", { "data-key": `${key} summary` }, words));
  const fill = () => details.open && details.childElementCount === 1 && details.append(make());
  details.addEventListener("toggle", fill);
  return details;
}
