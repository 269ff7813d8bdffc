// What is written and not sent: kept in this tab, for the same user, through a reload and a new sign-in.

import { config } from "./texts.js";

const KEY = "draft";

export function saveDraft(text, files) {
  const draft = { user: config.user, text, files };
  try {
    if (text || files.length) sessionStorage.setItem(KEY, JSON.stringify(draft));
    else sessionStorage.removeItem(KEY);
  } catch {
    // The files are larger than the browser keeps: the text alone is kept.
    if (files.length) saveDraft(text, []);
  }
}

// The text and files of before; null where there are none, or another user wrote them.
export function loadDraft() {
  const draft = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  if (draft && draft.user === config.user) return draft;
  sessionStorage.removeItem(KEY);
  return null;
}
