// The memories page: transcripts and notes, searched, added, imported from files, deleted.

import { call } from "./api.js";
import { parseCaptions } from "./captions.js";
import { acceptDrops, readText } from "./composer.js";
import { byId, foldButton, h, icon, iconButton } from "./dom.js";
import { config, dateTime, number, offset, t } from "./texts.js";
import { guarded, toast } from "./toasts.js";

const PAGE = 50;
const MOST_LISTED = 500;
const MOST_NOTE_CHARS = 100_000;
const MOST_HITS = 20;

export class Memories {
  constructor() {
    this.list = byId("memory-list");
    this.count = byId("memory-count");
    this.limit = PAGE;
    this.hidden = new Set();
    byId("memory-search").addEventListener("submit", guarded((event) => { event.preventDefault(); return this.load(); }));
    byId("memory-query").addEventListener("search", guarded(() => this.load()));
    byId("memory-form").addEventListener("submit", guarded((event) => { event.preventDefault(); return this.add(); }));
    byId("memory-import").addEventListener("click", () => byId("memory-file").click());
    byId("memory-file").addEventListener("change", guarded(async (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      await this.importFiles(files);
    }));
    window.addEventListener("pagehide", () => this.deleteHidden());
    acceptDrops(byId("memories-view"), guarded((files) => this.importFiles(files)));
  }

  async load() {
    const query = byId("memory-query").value.trim();
    this.list.setAttribute("aria-busy", "true");
    try {
      await (query ? this.search(query) : this.all());
    } finally {
      this.list.removeAttribute("aria-busy");
    }
  }

  async search(query) {
    const { results } = await call("POST", "/search/semantic", { query, top_k: MOST_HITS });
    this.count.textContent = results.length ? t("hits", { count: number(results.length) }) : t("nothingFound");
    this.fill(results.map((hit) => this.hitCard(hit)));
  }

  fill(cards) {
    for (const card of cards) card.hidden = this.hidden.has(card.dataset.path);
    this.list.replaceChildren(...cards);
    // What does not fit into its card can be unfolded.
    const texts = [...this.list.querySelectorAll(".text.folded")].filter((text) => text.scrollHeight > text.clientHeight + 1);
    for (const text of texts) text.after(foldButton(text));
  }

  async all() {
    const [stats, notes, transcripts] = await Promise.all([
      call("GET", "/memory/stats"),
      call("GET", `/memory/list?limit=${this.limit}`),
      call("GET", `/transcripts/recent?limit=${this.limit}`),
    ]);
    this.count.textContent = t("memoryCounts", { notes: number(stats.memories), transcripts: number(stats.transcripts) });
    const cards = [
      ...notes.memories.map((note) => ({ at: note.created_at, card: this.noteCard(note) })),
      ...transcripts.transcripts.map((one) => ({ at: one.created_at, card: this.transcriptCard(one) })),
    ].sort((a, b) => new Date(b.at) - new Date(a.at));
    if (!cards.length) this.list.replaceChildren(h("li.empty-note", {}, t("noMemories")));
    else this.fill(cards.map(({ card }) => card));
    if (cards.length < stats.memories + stats.transcripts) this.list.append(this.rest());
  }

  // A button for more of the list, or how to find what is too old for it.
  rest() {
    if (this.limit >= MOST_LISTED) return h("li.quiet", {}, t("memoriesBeyond"));
    const more = guarded(() => { this.limit = Math.min(MOST_LISTED, this.limit * 4); return this.load(); });
    return h("li", {}, h("button.more", { type: "button", onclick: more }, t("more")));
  }

  noteCard(note) {
    const path = `/memory/${encodeURIComponent(note.memory_id)}`;
    return h("li.card", { "data-path": path },
      head("note", note.title, dateTime(note.created_at), () => this.remove(path)), h("p.text.folded", { dir: "auto" }, note.body));
  }

  // One line of a transcript, or a note, that a search has found.
  hitCard({ text, metadata: { memory_id: note, job_id: transcript, title, speaker, created_at: time, start_time: start, body } }) {
    const path = note ? `/memory/${encodeURIComponent(note)}` : `/transcript/${encodeURIComponent(transcript)}`;
    const at = start === null || start === undefined ? "" : t("atOffset", { offset: offset(start) });
    const facts = [speaker, time && dateTime(time), at].filter(Boolean).join(" · ");
    return h("li.card", { "data-path": path },
      head(note ? "note" : "transcript", title || transcript || t("memory"), facts, () => this.remove(path)),
      h("p.text.folded", { dir: "auto" }, body ?? text));
  }

  transcriptCard(one) {
    const path = `/transcript/${encodeURIComponent(one.job_id)}`;
    const facts = [dateTime(one.created_at), one.speakers.join(", "), t("lines", { count: number(one.segment_count) })];
    const lines = h("div.lines");
    const details = h("details", {}, h("summary", {}, t("showLines")), lines);
    details.addEventListener("toggle", () => {
      if (details.open && !lines.childElementCount) lines.append(...one.segments.map(segmentLine));
    });
    return h("li.card", { "data-path": path },
      head("transcript", one.title || one.job_id, facts.filter(Boolean).join(" · "), () => this.remove(path)), details);
  }

  // Hidden at once with all its lines that are shown, and deleted when the time for taking it back is over.
  remove(path) {
    const cards = () => [...this.list.children].filter((card) => card.dataset.path === path);
    const hide = (isHidden) => {
      if (isHidden) this.hidden.add(path);
      else this.hidden.delete(path);
      for (const card of cards()) card.hidden = isHidden;
    };
    const end = guarded(async () => {
      if (!this.hidden.has(path)) return;
      try {
        await call("DELETE", path);
        for (const card of cards()) card.remove();
      } finally {
        hide(false);
      }
    });
    hide(true);
    toast(t("memoryDeleted"), { action: t("undo"), run: () => hide(false), onGone: end });
  }

  // The page is being left: what was deleted and not taken back is deleted now.
  deleteHidden() {
    for (const path of this.hidden) call("DELETE", path, undefined, { keepalive: true }).catch(() => {});
    this.hidden.clear();
  }

  async add() {
    const form = byId("memory-form");
    const { title, body } = Object.fromEntries(new FormData(form));
    if (!body.trim()) return;
    await call("POST", "/memory/add", { title: title.trim() || body.trim().split("\n")[0].slice(0, 80), body });
    form.reset();
    byId("memory-add").open = false;
    toast(t("memoryAdded"));
    await this.load();
  }

  async importFiles(files) {
    for (const file of files) {
      const text = await readText(file, config.maxTranscriptBytes);
      if (text === null) continue;
      await guarded(() => importText(file.name, text))();
    }
    await this.load();
  }
}

async function importText(name, text) {
  const segments = transcriptSegments(name, text);
  const title = name.replace(/\.[^.]+$/, "");
  if (segments) {
    const { segments_indexed: count } = await call("POST", "/index/transcript", { job_id: name, title, segments });
    toast(t("transcriptImported", { name, count: number(count) }));
    return;
  }
  const parts = paragraphsWithin(text, MOST_NOTE_CHARS);
  for (const [index, body] of parts.entries()) {
    await call("POST", "/memory/add", { title: parts.length > 1 ? `${title} (${index + 1})` : title, body });
  }
  toast(t("noteImported", { name }));
}

function transcriptSegments(name, text) {
  if (!name.endsWith(".json")) return parseCaptions(text);
  try {
    const { segments } = JSON.parse(text);
    if (!Array.isArray(segments)) return null;
    return segments.map(({ text: said, speaker, start, end, start_time, end_time }) => ({
      text: said, speaker, start_time: start_time ?? start, end_time: end_time ?? end,
    }));
  } catch {
    return null;
  }
}

// The text cut between paragraphs into parts of at most `most` characters.
function paragraphsWithin(text, most) {
  const parts = [""];
  for (const paragraph of text.split(/(?<=\n[^\S\n]*\n)/)) {
    for (let at = 0; at < paragraph.length; at += most) {
      const piece = paragraph.slice(at, at + most);
      if (parts.at(-1).length + piece.length > most) parts.push("");
      parts[parts.length - 1] += piece;
    }
  }
  return parts.filter((part) => part.trim());
}

function head(kind, title, facts, remove) {
  return h("header", {},
    icon(kind),
    h("div", {}, h("h3", { dir: "auto" }, title), h("p.quiet", { dir: "auto" }, facts)),
    iconButton("delete", t("deleteMemory", { title }), remove),
  );
}

function segmentLine({ speaker, text, start_time: start }) {
  const at = start === null || start === undefined ? "" : offset(start);
  return h("p", { dir: "auto" }, h("span.quiet", {}, at), speaker && h("b", {}, speaker), h("span", {}, text));
}
