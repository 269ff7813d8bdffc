// Markdown as elements: parsed by marked, cleaned by DOMPurify, coloured by highlight.js.
// A text that grows is drawn block by block: only the blocks that changed are made anew.

import { marked } from "./vendor/marked.js";
import DOMPurify from "./vendor/dompurify.js";
import { h, icon } from "./dom.js";
import { mathExtension } from "./math.js";
import { t } from "./texts.js";

const CLEAN = {
  RETURN_DOM_FRAGMENT: true,
  // An image would be a request to a host that the model names.
  FORBID_TAGS: ["style", "form", "button", "textarea", "select", "img", "picture", "source", "audio", "video", "svg", "math", "dialog"],
  FORBID_ATTR: ["style", "id", "name", "srcset", "src", "background", "for", "popover", "popovertarget"],
  ALLOW_DATA_ATTR: false,
};
marked.use({ gfm: true, breaks: true });
marked.use(mathExtension);

// The parser's time grows with the square of the emphasis marks in a paragraph: 3,000 take half a second.
const MOST_MARKS = 3000;
const FENCED = /^ {0,3}(```+|~~~+)[^\n]*\n[\s\S]*?(?:^ {0,3}\1|$(?![\s\S]))/gm;

// The label of a citation: [1], [1, 3], [2-4], as the service recognises them.
const CITATION = /\[(\d{1,3}(?:\s*[,–-]\s*\d{1,3})*)\]/g;
let highlighter = null;

export class MarkdownView {
  constructor(element, { onCitation } = {}) {
    this.element = element;
    this.onCitation = onCitation;
    this.blocks = [];
    this.labels = new Set();
    this.links = "";
  }

  // Draw the text; `labels` are those of the sources, which become links.
  draw(text, { labels = this.labels, isComplete = false } = {}) {
    const tokens = lexed(text);
    // Blocks name addresses ([text][1]) that a later block defines.
    const links = JSON.stringify(tokens.links);
    const isRelabelled = labels.size !== this.labels.size || links !== this.links;
    this.labels = labels;
    this.links = links;
    let kept = 0;
    while (!isRelabelled && kept < tokens.length && this.blocks[kept]?.raw === tokens[kept].raw) kept += 1;
    for (const block of this.blocks.splice(kept)) block.element.remove();
    for (const token of tokens.slice(kept)) {
      const element = this.block(token, tokens.links);
      this.element.append(element);
      this.blocks.push({ raw: token.raw, element });
    }
    if (isComplete) colourCode(this.element);
  }

  block(token, links) {
    const list = Object.assign([token], { links });
    const html = token.isPlain ? null : attempt(() => marked.parser(list));
    if (html === null) return h("div.block.plain", { dir: "auto" }, token.raw);
    const element = h("div.block", { dir: "auto" });
    element.append(DOMPurify.sanitize(html, CLEAN));
    // Before the page adds its own classes: a text must not use them to place itself over the page.
    for (const classed of element.querySelectorAll("[class]:not(pre > code)")) classed.removeAttribute("class");
    for (const link of element.querySelectorAll("a[href]")) {
      link.target = "_blank";
      link.rel = "noopener noreferrer nofollow";
    }
    for (const box of element.querySelectorAll("input")) box.disabled = true;
    for (const table of element.querySelectorAll("table")) frame(table, h("div.table", { tabindex: "0", role: "region", "aria-label": t("table") }));
    for (const code of element.querySelectorAll("pre > code")) frameCode(code);
    if (this.labels.size) this.linkCitations(element);
    return element;
  }

  linkCitations(element) {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT, (node) =>
      node.parentElement.closest("code, a") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT,
    );
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    for (const node of nodes) {
      const parts = node.data.split(CITATION);
      if (parts.length === 1) continue;
      node.replaceWith(...parts.flatMap((part, index) => (index % 2 ? this.citation(part) : part)));
    }
  }

  citation(label) {
    const numbers = label.split(/\D+/);
    if (!numbers.every((number) => this.labels.has(number))) return [`[${label}]`];
    return numbers.map((number) =>
      h("button.citation", { type: "button", "aria-label": t("openSource", { label: number }), onclick: () => this.onCitation?.(number) }, number),
    );
  }
}

// The blocks of a text; a single plain one when the parser cannot read it in time.
function lexed(text) {
  const paragraphs = text.replace(FENCED, "").split(/\n[ \t]*\n/);
  const isReadable = paragraphs.every((paragraph) => (paragraph.match(/[*_]/g)?.length ?? 0) <= MOST_MARKS);
  return (isReadable && attempt(() => marked.lexer(text))) || Object.assign([{ raw: text, isPlain: true }], { links: {} });
}

// The result, or null when the text nests too deep for the parser.
function attempt(parse) {
  try {
    return parse();
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function frame(element, box) {
  element.replaceWith(box);
  box.append(element);
}

function frameCode(code) {
  const name = code.className.match(/(?:^|\s)language-(\S+)/)?.[1] ?? "";
  code.removeAttribute("class");
  code.dataset.language = name;
  const copy = h("button.copy-code", { type: "button", onclick: () => copyText(code.textContent, copy) }, icon("copy"), h("span", {}, t("copy")));
  const pre = code.parentElement;
  pre.tabIndex = 0;
  frame(pre, h("div.code", {}, h("div.code-bar", {}, h("span", {}, name), copy)));
}

async function colourCode(element) {
  const codes = [...element.querySelectorAll("pre > code:not([data-coloured])")];
  if (!codes.length) return;
  highlighter ??= import("./vendor/highlight.js").then((module) => module.default);
  const hljs = await highlighter;
  for (const code of codes) {
    code.dataset.coloured = "";
    const language = code.dataset.language;
    if (!language || !hljs.getLanguage(language)) continue;
    const marked = hljs.highlight(code.textContent, { language, ignoreIllegals: true }).value;
    code.replaceChildren(DOMPurify.sanitize(marked, { RETURN_DOM_FRAGMENT: true, ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"] }));
  }
}

// Copy, and show on the button for a moment that it was done.
export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text);
  }
  button.classList.add("done");
  button.setAttribute("aria-label", t("copied"));
  setTimeout(() => { button.classList.remove("done"); button.setAttribute("aria-label", t("copy")); }, 1500);
}

// Pages that are not served over TLS have no clipboard.
function copyBySelection(text) {
  const area = h("textarea.offscreen", { "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
