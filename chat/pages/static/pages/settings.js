// The drawer: system prompt and strategy of the conversation; sampling, memories, colours and language of this browser.

import { call, conversationPath } from "./api.js";
import { byId } from "./dom.js";
import { config } from "./texts.js";
import { guarded } from "./toasts.js";

const STORED = "options";
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed", "rag_top_k"];

export class Settings {
  constructor() {
    this.dialog = byId("settings");
    this.form = byId("settings-form");
    this.conversation = null;
    this.options = { use_rag: config.usesMemories, ...load() };
    for (const name of NUMBERS) this.field(name).value = this.options[name] ?? "";
    this.field("use_rag").checked = this.options.use_rag;
    this.field("theme").value = document.documentElement.dataset.theme ?? "auto";
    this.field("language").value = document.documentElement.lang;
    this.form.addEventListener("change", guarded((event) => this.changed(event.target)));
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.dialog.close(); });
    byId("memories-switch").addEventListener("click", () => this.setUsesMemories(!this.options.use_rag));
    this.showSwitch();
  }

  field(name) {
    return this.form.elements.namedItem(name);
  }

  open() {
    this.dialog.showModal();
  }

  show(conversation) {
    // An answer that ends must not undo what is being typed here.
    const isEdited = this.dialog.open && conversation?.id === this.conversation?.id;
    this.conversation = conversation;
    if (isEdited) return;
    this.field("system_prompt").value = conversation?.system_prompt ?? "";
    this.field("strategy").value = conversation?.strategy ?? config.strategies[0];
  }

  // Fields of a request; what is not set is the service's default.
  requestOptions() {
    const set = Object.entries(this.options).filter(([, value]) => value !== null && value !== "");
    return Object.fromEntries(set);
  }

  // Fields of a conversation that has to be created before its first question; null where the defaults do.
  newConversation() {
    const fields = { system_prompt: this.field("system_prompt").value, strategy: this.field("strategy").value };
    return fields.system_prompt || fields.strategy !== config.strategies[0] ? fields : null;
  }

  async changed(field) {
    if (!field.reportValidity()) return;
    const { name, value } = field;
    if (NUMBERS.includes(name)) this.set(name, value === "" ? null : Number(value));
    if (name === "use_rag") this.setUsesMemories(field.checked);
    if (name === "theme") setTheme(value);
    if (name === "language") setLanguage(value);
    if (["system_prompt", "strategy"].includes(name) && this.conversation) {
      this.conversation[name] = value;
      await call("PATCH", conversationPath(this.conversation.id), { [name]: value });
    }
  }

  setUsesMemories(isWanted) {
    this.field("use_rag").checked = isWanted;
    this.set("use_rag", isWanted);
    this.showSwitch();
  }

  showSwitch() {
    byId("memories-switch").setAttribute("aria-pressed", String(this.options.use_rag));
  }

  set(name, value) {
    this.options[name] = value;
    try {
      localStorage.setItem(STORED, JSON.stringify(this.options));
    } catch {
      // Without storage the choice holds until the page is left.
    }
  }
}

function load() {
  try {
    return JSON.parse(localStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("theme", name);
  } catch {
    // As above.
  }
}

function setLanguage(name) {
  document.cookie = `django_language=${name}; path=/; max-age=31536000; samesite=lax`;
  location.reload();
}
