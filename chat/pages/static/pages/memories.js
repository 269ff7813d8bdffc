// The memories page: transcripts and notes, searched, added, imported from files, deleted.

import { call } from "./api.js";
import { parseCaptions } from "./captions.js";
import { acceptDrops, readText } from "./composer.js";
import { byId, h, icon, iconButton } from "./dom.js";
import { config, dateTime, number, offset, t } from "./texts.js";
import { guarded, toast } from "./toasts.js";

const PAGE = 50;
const MOST_NOTE_CHARS = 100_000;
const MOST_HITS = 20;

export class Memories {
  constructor() {
    this.list = byId("memory-list");
    this.count = byId("memory-count");
    byId("memory-search").addEventListener("submit", guarded((event) => { event.preventDefault(); return this.load(); }));
    byId("memory-query").addEventListener("search", guarded(() => this.load()));
    byId("memory-form").addEventListener("submit", guarded((event) => { event.preventDefault(); return this.add(); }));
    byId("memory-import").addEventListener("click", () => byId("memory-file").click());
    byId("memory-file").addEventListener("change", guarded(async (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      await this.importFiles(files);
    }));
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
    this.list.replaceChildren(...results.map(hitCard));
  }

  async all() {
    const [stats, notes, transcripts] = await Promise.all([
      call("GET", "/memory/stats"),
      call("GET", `/memory/list?limit=${PAGE}`),
      call("GET", `/transcripts/recent?limit=${PAGE}`),
    ]);
    this.count.textContent = t("memoryCounts", { notes: number(stats.memories), transcripts: number(stats.transcripts) });
    const cards = [
      ...notes.memories.map((note) => ({ at: note.created_at, card: this.noteCard(note) })),
      ...transcripts.transcripts.map((one) => ({ at: one.created_at, card: this.transcriptCard(one) })),
    ].sort((a, b) => new Date(b.at) - new Date(a.at));
    if (!cards.length) this.list.replaceChildren(h("li.empty-note", {}, t("noMemories")));
    else this.list.replaceChildren(...cards.map(({ card }) => card));
  }

  noteCard(note) {
    const remove = () => this.remove(`/memory/${encodeURIComponent(note.memory_id)}`, card);
    const card = h("li.card", {}, head("note", note.title, dateTime(note.created_at), remove), h("p.text", { dir: "auto" }, note.body));
    return card;
  }

  transcriptCard(one) {
    const remove = () => this.remove(`/transcript/${encodeURIComponent(one.job_id)}`, card);
    const facts = [dateTime(one.created_at), one.speakers.join(", "), t("lines", { count: number(one.segment_count) })];
    const lines = h("div.lines");
    const details = h("details", {}, h("summary", {}, t("showLines")), lines);
    details.addEventListener("toggle", () => {
      if (details.open && !lines.childElementCount) lines.append(...one.segments.map(segmentLine));
    });
    const card = h("li.card", {}, head("transcript", one.title || one.job_id, facts.filter(Boolean).join(" · "), remove), details);
    return card;
  }

  remove(path, card) {
    card.hidden = true;
    const restore = () => { card.hidden = false; };
    const end = guarded(async () => {
      try {
        await call("DELETE", path);
        card.remove();
      } catch (error) {
        restore();
        throw error;
      }
    });
    toast(t("memoryDeleted"), { action: t("undo"), run: restore, onGone: end });
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

function hitCard({ text, metadata }) {
  const facts = [metadata.speaker, metadata.created_at && dateTime(metadata.created_at)].filter(Boolean);
  return h("li.card", {},
    h("header", {}, icon(metadata.speaker === undefined ? "note" : "transcript"),
      h("div", {}, h("h3", { dir: "auto" }, metadata.title || t("memory")), h("p.quiet", {}, facts.join(" · ")))),
    h("p.text", { dir: "auto" }, text));
}
