// Short messages at the edge of the page, with at most one action each.

import { byId, h, iconButton } from "./dom.js";
import { errorText } from "./errors.js";
import { t } from "./texts.js";

const SHOWN_MS = 6000;

// Show a message; returns a function that removes it. `onGone` runs when its time is over, not after the action.
export function toast(text, { action, run, onGone, isError = false } = {}) {
  const remove = () => { clearTimeout(timer); element.remove(); };
  const end = () => { remove(); onGone?.(); };
  const element = h(isError ? "div.toast.error" : "div.toast", { role: isError ? "alert" : "status" }, h("span", {}, text));
  if (action) element.append(h("button", { type: "button", onclick: () => { remove(); run(); } }, action));
  element.append(iconButton("close", t("close"), end));
  byId("toasts").append(element);
  const timer = setTimeout(end, isError ? 2 * SHOWN_MS : SHOWN_MS);
  return remove;
}

export function showError(error) {
  if (error?.name === "AbortError") return;
  toast(errorText(error), { isError: true });
}

// Wrap an event handler whose failure the user should see.
export function guarded(run) {
  return async (...parameters) => {
    try {
      return await run(...parameters);
    } catch (error) {
      showError(error);
      if (!(error instanceof TypeError) && !error.status) throw error;
      return undefined;
    }
  };
}
