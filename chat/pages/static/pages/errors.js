// Sentences for refusals and failures, by the code that the service gives them.

import { duration, number, t } from "./texts.js";

const TEXTS = {
  body_too_large: "errorBodyTooLarge",
  caller_limit: "errorCallerLimit",
  context_overflow: "errorContext",
  conversation_busy: "errorBusy",
  conversation_limit: "errorConversationLimit",
  csrf_failed: "errorReload",
  gpu_busy: "errorUnavailable",
  internal_error: "errorInternal",
  inference_error: "errorInternal",
  memory_limit: "errorMemoryLimit",
  model_unavailable: "errorUnavailable",
  no_worker: "errorUnavailable",
  queue_full: "errorQueueFull",
  rate_limited: "errorRate",
  restarting: "errorUnavailable",
  store_unavailable: "errorUnavailable",
  timeout: "errorTimeout",
  token_limit: "errorTokens",
  unavailable: "errorUnavailable",
  wrong_credentials: "errorPassword",
};

// An ApiError, the `error` of an answer, or the TypeError of a service that cannot be reached. A code without a
// sentence here has the service's own, which is English.
export function errorText(error) {
  if (error instanceof TypeError) return t("serviceAway");
  const { prompt_tokens: count, context_size: most } = error.details ?? error;
  const key = TEXTS[error.code];
  if (!key || (error.code === "context_overflow" && !count)) return error.message.charAt(0).toUpperCase() + error.message.slice(1);
  const numbers = count ? { count: number(count), most: number(most) } : {};
  return t(key, { ...numbers, time: duration(error.retryAfter || 1) });
}
