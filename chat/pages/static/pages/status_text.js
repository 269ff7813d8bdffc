// Sentences for the states that a stream reports, and for the facts of a finished answer.

import { errorText } from "./errors.js";
import { number, ordinal, percent, t } from "./texts.js";

// What is happening to an answer that has no text yet, or pauses.
export function statusText(status) {
  const text = sentence(status);
  // The coordinator names the program that holds the graphics card.
  return status.reason ? `${text} (${status.reason})` : text;
}

function sentence(status) {
  switch (status.state) {
    case "queued":
      return queued(status);
    case "retrieving":
      return t("retrieving");
    case "waiting_for_gpu":
      return t("waitingForGpu");
    case "loading":
      return t("loading");
    case "summarizing":
      return status.progress === undefined ? t("summarizing") : t("summarizingPart", { share: percent(status.progress) });
    case "prefill":
      return status.progress === undefined ? t("prefill") : t("prefillPart", { share: percent(status.progress) });
    case "yielding":
      return t("yielding");
    default:
      return status.state;
  }
}

function queued({ position, wait_s: wait }) {
  if (!position) return t("queued");
  const place = ordinal(position);
  return wait ? t("queuedSecs", { place, secs: number(Math.max(1, wait)) }) : t("queuedPlace", { place });
}

// "Gemma-3-270m · GPU · 31.4 tokens/s · 212 tokens · first token after 0.4 s"
export function factsText({ model, devices, usage, timings }) {
  const facts = [];
  if (model) facts.push(model);
  if (devices?.length) facts.push(devices.map(({ device }) => deviceName(device)).join(" → "));
  const count = usage?.completion_tokens ?? 0;
  if (count > 1 && timings?.decode > 0) facts.push(t("rate", { rate: number((count - 1) / (timings.decode / 1000), 1) }));
  if (count) facts.push(t(count === 1 ? "oneToken" : "tokens", { count: number(count) }));
  if (timings?.first_token > 0) facts.push(t("firstToken", { secs: shortSecs(timings.first_token / 1000) }));
  return facts.join(" · ");
}

// One digit after the point, two for a time of which the first would be 0.
function shortSecs(secs) {
  return number(Math.max(0.01, secs), secs < 0.1 ? 2 : 1);
}

export function deviceName(device) {
  return { cpu: "CPU", gpu: "GPU" }[device] ?? device;
}

// Why an answer is shorter than the model wanted it; empty for one that is whole.
export function endText({ status, finish_reason: reason, error }) {
  if (error) return errorText(error);
  if (reason === "length") return t("endLength");
  if (reason === "cancelled" || status === "interrupted") return t("endStopped");
  return "";
}

// Messages that were not in the prompt word for word.
export function historyText(history) {
  if (!history?.messages_left_out) return "";
  const key = history.messages_summarized ? "historySummarized" : "historyLeftOut";
  return t(key, { count: number(history.messages_left_out) });
}
