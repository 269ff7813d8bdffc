// A question on the page, which can be changed and sent again.

import { foldButton, h, icon, iconButton, isComposing } from "./dom.js";
import { copyText } from "./markdown.js";
import { t } from "./texts.js";

// A longer question is folded.
const MOST_CHARS = 1500;
const MOST_LINES = 20;

export class QuestionView {
  // `actions`: edit(view, text); `context`: the texts that were sent beside the question.
  constructor(text, actions, { messageId = null, context = [] } = {}) {
    this.actions = actions;
    this.context = context;
    this.messageId = messageId;
    this.element = h("article.question", { "aria-label": t("question") });
    this.show(text);
  }

  setContext(context) {
    this.context = context;
    this.show(this.text);
  }

  show(text) {
    this.text = text;
    const copy = iconButton("copy", t("copy"), () => copyText(text, copy));
    this.editButton = iconButton("edit", t("edit"), () => this.edit());
    const bubble = h("div.bubble", { dir: "auto" }, text);
    const isLong = text.length > MOST_CHARS || text.split("\n", MOST_LINES + 1).length > MOST_LINES;
    this.element.replaceChildren(
      ...(this.context.length ? [this.files()] : []),
      bubble,
      h("div.actions", {}, isLong && foldButton(bubble), copy, this.editButton),
    );
  }

  files() {
    const chips = this.context.map(({ title }) => h("li.chip", {}, icon("note"), h("span", { dir: "auto", title }, title)));
    return h("ul.files", { "aria-label": t("files") }, ...chips);
  }

  edit() {
    const area = h("textarea", { "aria-label": t("question"), dir: "auto", rows: Math.min(12, this.text.split("\n").length + 1) });
    area.value = this.text;
    const back = () => { this.show(this.text); this.editButton.focus(); };
    const submit = () => {
      if (area.value.trim()) this.actions.edit(this, area.value);
    };
    area.addEventListener("keydown", (event) => {
      if (isComposing(event)) return;
      if (event.key === "Escape") back();
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); submit(); }
    });
    this.element.replaceChildren(
      h("div.edit", {}, area, h("div.actions", {},
        h("button", { type: "button", onclick: back }, t("cancel")),
        h("button.primary", { type: "button", onclick: submit }, t("sendAgain")))),
    );
    area.focus();
  }
}
