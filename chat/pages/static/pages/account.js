// The account page: API keys (made, shown once, revoked), usage and limits, the user's data.

import { allPages, call } from "./api.js";
import { byId, h, icon, iconButton } from "./dom.js";
import { copyText } from "./markdown.js";
import { dateTime, number, t } from "./texts.js";
import { guarded, toast } from "./toasts.js";

export class Account {
  constructor() {
    this.list = byId("key-list");
    byId("key-form").addEventListener("submit", guarded((event) => { event.preventDefault(); return this.make(); }));
    byId("account-deletion").addEventListener("submit", guarded((event) => { event.preventDefault(); return this.deleteAll(); }));
  }

  async load() {
    const [keys, usage] = await Promise.all([allPages("/api/keys/"), call("GET", "/api/usage/")]);
    this.list.replaceChildren(...keys.map((key) => this.card(key)));
    byId("usage").replaceChildren(...usageRows(usage));
  }

  card(key) {
    const used = key.last_used_at ? t("keyUsed", { time: dateTime(key.last_used_at) }) : t("keyUnused");
    const expiry = t("keyExpires", { time: dateTime(key.expires_at) });
    const state = { active: expiry, expired: t("expired"), revoked: t("revoked") }[key.state];
    const revoke = h("button", { type: "button", onclick: guarded(() => this.revoke(key)) }, t("revoke"));
    return h("li.card", {}, h("header", {},
      icon("key"),
      h("div", {},
        h("h3", { dir: "auto" }, key.name, " ", h("code.quiet", {}, `${key.prefix}…`)),
        h("p.quiet", {}, [key.scopes.join(", "), state, used].join(" · "))),
      key.state === "active" && revoke));
  }

  async make() {
    const form = byId("key-form");
    const data = new FormData(form);
    const body = { name: data.get("name"), scopes: data.getAll("scopes"), expires_in_days: Number(data.get("days")) };
    if (!body.scopes.length) { toast(t("keyNeedsScope"), { isError: true }); return; }
    const made = await call("POST", "/api/keys/", body);
    form.reset();
    const field = h("input", { type: "text", readonly: true, "aria-label": t("newKey"), id: "new-key-text" });
    field.value = made.key;
    const copy = iconButton("copy", t("copy"), () => copyText(made.key, copy));
    byId("new-key").replaceChildren(h("p", {}, t("keyShownOnce")), h("div.bar", {}, field, copy));
    byId("new-key").hidden = false;
    field.focus();
    field.select();
    await this.load();
  }

  async revoke(key) {
    await call("DELETE", `/api/keys/${encodeURIComponent(key.id)}/`);
    toast(t("keyRevoked", { name: key.name }));
    await this.load();
  }

  async deleteAll() {
    const password = new FormData(byId("account-deletion")).get("password");
    await call("DELETE", "/api/account/", { password });
    location.assign("/");
  }
}

function usageRows({ limits, now }) {
  const rows = [
    ["requestsPerMinute", now.requests_this_minute, limits.requests_per_minute],
    ["tokensPerMinute", now.tokens_this_minute, limits.tokens_per_minute],
    ["tokensToday", now.tokens_today, limits.tokens_per_day],
    ["answersAtOnce", now.answers_under_way, limits.answers_at_once],
    ["conversationCount", now.conversations, limits.conversations],
    ["memoryCount", now.memories, limits.memories],
  ];
  return rows.map(([key, used, limit]) =>
    h("div", {}, h("dt", {}, t(key)), h("dd", {}, limit === null ? number(used) : t("ofLimit", { used: number(used), limit: number(limit) }))));
}
