// The sources of an answer: numbered chips, and the text of one with its speaker and time.

import { byId, h, iconButton } from "./dom.js";
import { dateTime, offset, t } from "./texts.js";

// Chips for the sources; those that the answer cites are marked.
export function sourceChips(sources) {
  const chips = sources.map((source) =>
    h(source.cited ? "button.chip.cited" : "button.chip", {
      type: "button",
      "aria-label": t(source.cited ? "openCitedSource" : "openSource", { label: `${source.label} ${shortName(source)}` }),
      onclick: () => openSource(source),
    }, h("b", {}, source.label), " ", h("span", {}, shortName(source))),
  );
  return h("div.sources", { role: "group", "aria-label": t("sources") }, ...chips);
}

export function openSource(source) {
  const dialog = byId("source-dialog");
  const facts = [source.title, source.speaker, when(source), source.emotion].filter(Boolean);
  dialog.replaceChildren(
    h("header", {}, h("h2", {}, t("source", { label: source.label })), iconButton("close", t("close"), () => dialog.close())),
    h("p.facts", { dir: "auto" }, facts.join(" · ")),
    h("blockquote", { dir: "auto", tabindex: "0" }, source.text),
    h("p.quiet", {}, t(source.cited ? "cited" : "notCited")),
  );
  dialog.showModal();
}

function shortName(source) {
  return source.speaker || source.title || t(source.kind === "document" ? "document" : "memory");
}

function when({ time, start_time: start }) {
  const at = start === undefined || start === null ? "" : t("atOffset", { offset: offset(start) });
  return [time && dateTime(time), at].filter(Boolean).join(", ");
}
