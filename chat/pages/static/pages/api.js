// Calls of the service's API, with the session of the page.

import { config } from "./texts.js";

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = body?.code ?? "";
    this.field = body?.field ?? "";
    this.details = body ?? {};
    this.retryAfter = Number(retryAfter) || 0;
  }
}

// The cookie is newer than the page where another tab signed in.
function csrfToken() {
  const cookie = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/);
  return cookie ? decodeURIComponent(cookie[1]) : document.querySelector("meta[name=csrf-token]").content;
}

// A response with a good status. Throws ApiError, and TypeError where the service cannot be reached.
export async function send(method, path, body, { headers = {}, ...options } = {}) {
  const all = { Accept: "application/json", ...headers };
  // Where no sign-in is needed, a page whose session has ended would go on as that of all.
  if (config.user) all["X-Page-User"] = encodeURIComponent(config.user);
  if (method !== "GET") all["X-CSRFToken"] = csrfToken();
  if (body !== undefined) all["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers: all,
    body: body === undefined ? undefined : JSON.stringify(body),
    credentials: "same-origin",
    ...options,
  });
  if (response.ok) return response;
  const content = await response.json().catch(() => null);
  if (response.status === 401) window.dispatchEvent(new Event("signedout"));
  throw new ApiError(response.status, content?.error, response.headers.get("Retry-After"));
}

// The JSON of an answer, null for one without a body.
export async function call(method, path, body, options) {
  const response = await send(method, path, body, options);
  return response.status === 204 ? null : response.json();
}

// All rows of a list in pages.
export async function allPages(path) {
  const rows = [];
  const joint = path.includes("?") ? "&" : "?";
  for (let page = { next: true }; page.next; ) {
    page = await call("GET", `${path}${joint}limit=500&offset=${rows.length}`);
    rows.push(...page.results);
    if (!page.results.length) break;
  }
  return rows;
}

export const conversationPath = (id) => `/api/conversations/${encodeURIComponent(id)}/`;

// A random key; crypto.randomUUID exists on secure origins alone.
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
