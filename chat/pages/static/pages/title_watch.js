// The title that the model makes after the first answer: looked for until it is there.

import { call, conversationPath } from "./api.js";

// Titles wait behind all answers; after the last look the next answer or a reload shows them.
const PAUSES_MS = [1000, 2000, 4000, 8000, 16_000, 32_000, 64_000];
const watched = new Set();

// Run `onTitle` with the conversation once its title is no longer awaited.
export async function watchTitle({ id, title_source: source }, onTitle) {
  if (source !== "awaited" || watched.has(id)) return;
  watched.add(id);
  try {
    for (const ms of PAUSES_MS) {
      await new Promise((resolve) => setTimeout(resolve, ms));
      const conversation = await call("GET", conversationPath(id));
      if (conversation.title_source !== "awaited") return onTitle(conversation);
    }
  } catch {
    // It was deleted, or the service is away: nothing depends on the title.
  } finally {
    watched.delete(id);
  }
}
