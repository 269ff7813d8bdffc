// Elements from code: no text is ever parsed as markup here.

const SVG = "http://www.w3.org/2000/svg";

// h("button.primary", {type: "submit", onclick: send}, "Send"): the names after dots are classes.
export function h(selector, properties = {}, ...children) {
  const [name, ...classes] = selector.split(".");
  const element = document.createElement(name || "div");
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function iconButton(name, label, onclick, properties = {}) {
  return h("button.icon-button", { type: "button", "aria-label": label, title: label, onclick, ...properties }, icon(name));
}

export function byId(id) {
  return document.getElementById(id);
}

// A list of actions below a button; closes on Escape, on a choice and on a click elsewhere.
export function openMenu(button, actions) {
  const items = actions.map(({ label, run, danger }) =>
    h(danger ? "button.danger" : "button", { type: "button", role: "menuitem", onclick: () => { close(); run(); } }, label),
  );
  const menu = h("div.menu", { role: "menu" }, ...items);
  const close = () => {
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", onOutside);
    if (document.activeElement === document.body) button.focus();
  };
  const onOutside = (event) => { if (!menu.contains(event.target)) close(); };
  menu.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") close();
    if (event.key === "Escape") button.focus();
    if (!step) return;
    event.preventDefault();
    const at = items.indexOf(document.activeElement);
    items[(at + step + items.length) % items.length].focus();
  });
  button.setAttribute("aria-expanded", "true");
  button.after(menu);
  document.addEventListener("pointerdown", onOutside);
  items[0].focus();
}
