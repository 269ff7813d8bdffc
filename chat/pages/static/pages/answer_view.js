// An answer on the page: text as it comes, what it waits for, and the facts and actions below it.

import { h, icon, iconButton } from "./dom.js";
import { errorText } from "./errors.js";
import { copyText, MarkdownView } from "./markdown.js";
import { openSource, sourceChips } from "./sources.js";
import { endText, factsText, historyText, statusText } from "./status_text.js";
import { t } from "./texts.js";

const DRAW_MS = 60;

export class AnswerView {
  // `actions`: again(view), and what `versions` needs.
  constructor(actions) {
    this.actions = actions;
    this.text = "";
    this.thought = "";
    this.messageId = null;
    this.generationId = null;
    this.content = h("div.markdown");
    this.markdown = new MarkdownView(this.content, { onCitation: (label) => this.openLabel(label) });
    this.thoughtText = h("p", { dir: "auto" });
    this.thoughts = h("details.thought", { hidden: true }, h("summary", {}, t("thought")), this.thoughtText);
    this.status = h("p.status", { hidden: true }, h("span.pulse", { "aria-hidden": "true" }), h("span"));
    this.foot = h("footer");
    this.element = h("article.answer", { "aria-label": t("answer") }, this.thoughts, this.content, this.status, this.foot);
    this.sources = [];
  }

  // A stored message; one that is being made is filled by its stream.
  show(message) {
    this.messageId = message.id;
    this.generationId = message.generation_id;
    if (["preparing", "queued", "running"].includes(message.status)) return;
    this.text = message.content;
    this.setThought(message.thought ?? "");
    this.finish(message);
  }

  begin() {
    this.element.classList.add("running");
    this.element.setAttribute("aria-busy", "true");
    this.setStatus(t("sending"));
  }

  focus() {
    this.element.tabIndex = -1;
    this.element.focus({ preventScroll: true });
  }

  push(line) {
    this.generationId = line.generation_id ?? this.generationId;
    this.messageId = line.message_id ?? this.messageId;
    if (line.thought) this.setThought(this.thought + line.thought);
    if (line.token) {
      this.text += line.token;
      this.drawSoon();
    }
    if (line.status?.state === "retrieving") this.hasSearched = true;
    if (line.status) this.setStatus(statusText(line.status));
    else if (line.token) this.setStatus("");
    if (line.done) this.finish(line);
  }

  setStatus(text) {
    this.status.hidden = !text;
    if (text && this.status.lastChild.textContent !== text) this.status.lastChild.textContent = text;
  }

  setThought(text) {
    this.thought = text;
    this.thoughts.hidden = !text;
    this.thoughtText.textContent = text;
  }

  drawSoon() {
    this.timer ??= setTimeout(() => { this.timer = null; this.markdown.draw(this.text); this.actions.onGrow?.(); }, DRAW_MS);
  }

  finish(outcome) {
    clearTimeout(this.timer);
    this.timer = null;
    this.outcome = outcome;
    this.sources = outcome.sources ?? [];
    this.element.classList.remove("running");
    this.element.removeAttribute("aria-busy");
    this.setStatus("");
    const labels = new Set(this.sources.map((source) => source.label));
    this.markdown.draw(this.text, { labels, isComplete: true });
    this.foot.replaceChildren(...this.footParts(outcome).filter(Boolean));
  }

  // An error before or instead of an answer.
  fail(error) {
    this.finish({ error: { message: errorText(error) } });
  }

  footParts(outcome) {
    const end = endText(outcome);
    const hasFoundNothing = this.hasSearched && !outcome.error && !outcome.rag_error && !this.sources.length;
    const notes = [
      outcome.rag_error && t("ragError", { reason: outcome.rag_error }),
      hasFoundNothing && t("nothingRemembered"),
      historyText(outcome.usage?.history),
    ];
    return [
      end && h(outcome.error ? "p.end.error" : "p.end", { role: outcome.error ? "alert" : null }, icon("notice"), end),
      this.sources.length > 0 && sourceChips(this.sources),
      ...notes.map((note) => note && h("p.quiet", {}, note)),
      h("div.actions", {}, ...this.buttons(), h("span.quiet.facts", {}, factsText(outcome))),
    ];
  }

  buttons() {
    const copy = iconButton("copy", t("copy"), () => copyText(this.text, copy));
    const again = iconButton("again", t("again"), () => this.actions.again(this));
    this.versions = h("span.versions", { hidden: true });
    return [this.text ? copy : null, this.messageId || this.outcome.error ? again : null, this.versions];
  }

  // "‹ 2 / 3 ›": `place` counts from 0.
  showVersions(place, count, choose) {
    if (!this.versions) return;
    const step = (name, label, to) => iconButton(name, label, () => choose(to), { disabled: to < 0 || to >= count });
    this.versions.hidden = false;
    this.versions.replaceChildren(
      step("back", t("previousVersion"), place - 1),
      h("span", { "aria-label": t("version", { place: place + 1, count }) }, `${place + 1} / ${count}`),
      step("forward", t("nextVersion"), place + 1),
    );
  }

  openLabel(label) {
    const source = this.sources.find((one) => one.label === label);
    if (source) openSource(source);
  }
}
