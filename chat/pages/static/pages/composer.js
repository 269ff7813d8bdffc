// The field for the next question, with text files beside it.

import { byId, h, iconButton, isComposing } from "./dom.js";
import { loadDraft, saveDraft } from "./draft.js";
import { config, number, t } from "./texts.js";
import { toast } from "./toasts.js";

const MOST_HEIGHT_PX = 260;
const BINARY = /\0/;

export class Composer {
  // `on`: send(text, context), stop()
  constructor(on) {
    this.on = on;
    this.form = byId("composer");
    this.field = byId("question");
    this.button = byId("send");
    this.chips = byId("attachments");
    this.files = [];
    this.isBusy = false;
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
    // The second click of a double click would stop what the first has sent.
    this.button.addEventListener("click", (event) => { if (event.detail > 1) event.preventDefault(); });
    this.field.addEventListener("input", () => { this.fit(); this.keep(); });
    this.field.addEventListener("keydown", (event) => this.onKey(event));
    this.field.addEventListener("paste", (event) => this.onFiles(event, event.clipboardData));
    byId("attach").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => { this.add([...event.target.files]); event.target.value = ""; });
    acceptDrops(byId("chat-view"), (files) => this.add(files));
    const draft = loadDraft();
    if (draft) this.restore(draft.text, draft.files);
  }

  // Put back what was written and not stored. What has been written since stays below it.
  restore(text, files) {
    this.field.value = [text, this.field.value].filter(Boolean).join("\n\n");
    this.files = [...files, ...this.files];
    this.drawFiles();
    this.fit();
    this.keep();
  }

  keep() {
    saveDraft(this.field.value, this.files);
  }

  onKey(event) {
    if (isComposing(event)) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.isBusy) this.submit();
    }
    if (event.key === "Escape" && this.isBusy) this.on.stop();
  }

  onFiles(event, data) {
    const files = [...data.files];
    if (!files.length) return;
    event.preventDefault();
    this.add(files);
  }

  submit() {
    if (this.isBusy) { this.on.stop(); return; }
    const text = this.field.value.trim();
    if (!text) { this.field.focus(); return; }
    const context = this.files.map(({ name, text: content }) => ({ text: content, title: name }));
    this.field.value = "";
    this.files = [];
    this.drawFiles();
    this.fit();
    // The draft is kept until the service has the question: a reload brings back what it has not.
    this.on.send(text, context);
  }

  setBusy(isBusy) {
    this.isBusy = isBusy;
    this.button.classList.toggle("stop", isBusy);
    const label = t(isBusy ? "stop" : "send");
    this.button.setAttribute("aria-label", label);
    this.button.title = label;
  }

  focus() {
    this.field.focus();
  }

  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, MOST_HEIGHT_PX)}px`;
  }

  async add(files) {
    for (const file of files) {
      const text = await readText(file, config.maxBytes / 2);
      if (text !== null) this.files.push({ name: file.name, text });
    }
    this.drawFiles();
    this.keep();
    this.field.focus();
  }

  drawFiles() {
    this.chips.hidden = !this.files.length;
    this.chips.replaceChildren(...this.files.map((file) =>
      h("span.chip", {}, h("span", { dir: "auto" }, file.name), iconButton("close", t("removeFile", { name: file.name }), () => {
        this.files = this.files.filter((one) => one !== file);
        this.drawFiles();
        this.keep();
        this.field.focus();
      })),
    ));
  }
}

// The text of a file; null, and a message, for one that is too large or no text.
export async function readText(file, maxBytes) {
  if (file.size > maxBytes) {
    toast(t("fileTooLarge", { name: file.name, most: number(Math.floor(maxBytes / 1024)) }), { isError: true });
    return null;
  }
  const text = await file.text();
  if (!BINARY.test(text) && text.trim()) return text;
  toast(t("noTextFile", { name: file.name }), { isError: true });
  return null;
}

export function acceptDrops(area, take) {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  area.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    area.classList.add("drop");
  });
  area.addEventListener("dragleave", (event) => { if (!area.contains(event.relatedTarget)) area.classList.remove("drop"); });
  area.addEventListener("drop", (event) => {
    area.classList.remove("drop");
    if (!hasFiles(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}
