// Keeps the tabs of one browser in step: each tells the others which conversation it changed.

const channel = "BroadcastChannel" in window ? new BroadcastChannel("gemma-chat") : null;

export function announceChange(conversationId) {
  channel?.postMessage({ conversationId });
}

export function onChangeElsewhere(run) {
  channel?.addEventListener("message", (event) => run(event.data.conversationId));
}
