// The lines of an answer as they come: reads server-sent events, and goes on after a lost connection.

import { ApiError, newKey, send } from "./api.js";

const PAUSES_MS = [250, 500, 1000, 2000, 4000, 8000];
// Without answers the service sends a sign of life every 15 s: a connection that is silent for longer is lost.
const SILENCE_MS = 45_000;
// Of a proxy that does not reach the service.
const AWAY = [502, 503, 504];

// Begin an answer. The key makes it safe to send the question again, and lets the answer go on without this page.
export async function* ask(body, { signal, onLost }) {
  const headers = { "Idempotency-Key": newKey(), Prefer: "continue-unread" };
  const response = await patiently(() => send("POST", "/chat/stream", body, { headers, signal }), signal, onLost);
  yield* readAndResume(response, null, { signal, onLost });
}

// Read an answer that is being made, or was made, from its beginning.
export async function* follow(generationId, { signal, onLost }) {
  const open = () => send("GET", streamPath(generationId), undefined, { signal });
  yield* readAndResume(await patiently(open, signal, onLost), generationId, { signal, onLost });
}

async function* readAndResume(first, generationId, { signal, onLost }) {
  let response = first;
  let lastId = "0";
  for (;;) {
    try {
      for await (const line of linesOf(response)) {
        generationId = line.generation_id ?? generationId;
        lastId = String(line.id);
        yield line;
        if (line.done) return;
      }
    } catch (error) {
      if (signal?.aborted || !(error instanceof TypeError)) throw error;
    }
    // The stream ended without its last line: the connection was lost, or the web process restarts.
    if (!generationId) throw new ApiError(502, { message: "the stream ended before it began" });
    const headers = { "Last-Event-ID": lastId };
    const reopen = () => send("GET", streamPath(generationId), undefined, { headers, signal });
    response = await patiently(reopen, signal, onLost, { isBegun: true });
    if (response.status === 204) return;
  }
}

const streamPath = (id) => `/chat/stream/${encodeURIComponent(id)}`;

// Try again while the service cannot be reached; its own refusals are final. An answer that has begun goes on without
// this page, which looks for it as long as it is open.
async function patiently(open, signal, onLost, { isBegun = false } = {}) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await open();
    } catch (error) {
      const isAway = error instanceof TypeError || error.code === "restarting" || (AWAY.includes(error.status) && !error.code);
      if (signal?.aborted || !isAway || (attempt >= PAUSES_MS.length && !isBegun)) throw error;
      onLost?.();
      await pause(PAUSES_MS[attempt] ?? PAUSES_MS.at(-1), signal);
    }
  }
}

// Ends early when the network is back.
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const end = () => { clearTimeout(timer); window.removeEventListener("online", end); resolve(); };
    const timer = setTimeout(end, ms);
    window.addEventListener("online", end);
    signal?.addEventListener("abort", () => { end(); reject(signal.reason); }, { once: true });
  });
}

// The next part of a response. Throws TypeError, as for a lost connection, where nothing comes any more.
async function readWithin(reader, ms) {
  let timer;
  const silence = new Promise((_, reject) => { timer = setTimeout(() => reject(new TypeError("nothing came")), ms); });
  try {
    return await Promise.race([reader.read(), silence]);
  } finally {
    clearTimeout(timer);
  }
}

async function* linesOf(response) {
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, SILENCE_MS);
      if (done) return;
      text += value;
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
