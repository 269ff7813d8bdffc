// Elements from code: no text is ever parsed as markup here.

import { t } from "./texts.js";

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

// A button that shows all of an element, or its beginning alone as at first.
export function foldButton(element) {
  const button = h("button.fold-button", { type: "button", onclick: () => show(!element.classList.contains("folded")) });
  const show = (isFolded) => {
    element.classList.toggle("folded", isFolded);
    button.setAttribute("aria-expanded", String(!isFolded));
    button.textContent = t(isFolded ? "showAll" : "showLess");
  };
  show(true);
  return button;
}

// Whether a key belongs to an input method; Safari reports the Enter that ends a composition with the key code alone.
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
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
    if (event.key === "Escape") {
      event.stopPropagation(); // it would close the list of a narrow window as well
      button.focus();
    }
    if (!step) return;
    event.preventDefault();
    const at = items.indexOf(document.activeElement);
    items[(at + step + items.length) % items.length].focus();
  });
  button.setAttribute("aria-expanded", "true");
  button.after(menu);
  placeWithin(menu.closest(".conversations"), menu, button);
  document.addEventListener("pointerdown", onOutside);
  items[0].focus();
}

// Above its button where the list ends below it.
function placeWithin(list, menu, button) {
  const room = list.getBoundingClientRect();
  const hasRoomBelow = menu.getBoundingClientRect().bottom <= room.bottom;
  const hasRoomAbove = button.getBoundingClientRect().top - menu.offsetHeight >= room.top;
  menu.classList.toggle("above", !hasRoomBelow && hasRoomAbove);
  menu.scrollIntoView({ block: "nearest" });
}
