// Versions of a conversation: where its branches part, and which of them go on from the same messages.

import { call, conversationPath } from "./api.js";

// For every position at which a version differs from the others: their conversations, oldest first, and the place of
// this one among them.
export async function versionsOf(conversation) {
  const { results } = await call("GET", `${conversationPath(conversation.id)}versions/`);
  const byId = new Map(results.map((one) => [one.id, one]));
  const meetings = results.map((one) => ({ one, at: commonLength(conversation.id, one.id, byId) }));
  const positions = [...new Set(meetings.map(({ at }) => at))].filter((at) => at !== Infinity).sort((a, b) => a - b);
  return positions.map((position) => {
    // Versions that share the messages before: one for each way on from here, in the order of their beginnings.
    const near = meetings.filter(({ at }) => at >= position).map(({ one }) => one);
    const groups = [];
    for (const one of near) {
      const group = groups.find(([first]) => commonLength(first.id, one.id, byId) > position);
      if (group) group.push(one);
      else groups.push([one]);
    }
    const place = groups.findIndex((group) => group.some(({ id }) => id === conversation.id));
    // Of several that go on alike, the one that was used last.
    const ids = groups.map((group) => group.reduce((a, b) => (a.updated_at > b.updated_at ? a : b)).id);
    ids[place] = conversation.id;
    return { position, place, ids };
  });
}

// The number of first messages that two versions share; Infinity for a version and itself.
function commonLength(a, b, byId) {
  if (a === b) return Infinity;
  const reach = new Map();
  for (let id = a, shared = Infinity; id; ) {
    reach.set(id, shared);
    const { forked_from: from, forked_at: at } = byId.get(id) ?? {};
    shared = Math.min(shared, at ?? 0);
    id = from;
  }
  for (let id = b, shared = Infinity; id; ) {
    if (reach.has(id)) return Math.min(shared, reach.get(id));
    const { forked_from: from, forked_at: at } = byId.get(id) ?? {};
    shared = Math.min(shared, at ?? 0);
    id = from;
  }
  return 0;
}
