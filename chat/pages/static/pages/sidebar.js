// The list of conversations: by day, searched, renamed, archived and deleted with a way back, saved as files.

import { call, conversationPath } from "./api.js";
import { byId, h, iconButton, isComposing, openMenu } from "./dom.js";
import { dayGroup, t } from "./texts.js";
import { guarded, toast } from "./toasts.js";

const PAGE = 50;
const MOST_AT_ONCE = 500;
const SEARCH_MS = 250;

export class Sidebar {
  // `on`: open(id), renamed(row), archived(row), deleted(row, {isFinal})
  constructor(on) {
    this.on = on;
    this.list = byId("conversations");
    this.search = byId("search");
    this.rows = [];
    this.limit = PAGE;
    this.hidden = new Map();
    this.isArchive = false;
    this.current = null;
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(guarded(() => this.reload()), SEARCH_MS);
    });
    byId("archive-switch").addEventListener("click", guarded(() => this.showArchive(!this.isArchive)));
    window.addEventListener("pagehide", () => this.deleteHidden());
  }

  async reload() {
    const query = new URLSearchParams({ archived: this.isArchive });
    const text = this.search.value.trim();
    // A search finds every version that has the words; one of each is shown.
    if (text) query.set("search", text);
    else query.set("versions", "latest");
    const ticket = (this.ticket = Symbol("reload"));
    const { results, count } = await firstRows(this.limit, query);
    if (ticket !== this.ticket) return;
    const families = new Set();
    this.rows = results.filter(({ id, family }) => {
      const name = family ?? id;
      return !families.has(name) && families.add(name);
    });
    this.hasMore = count > results.length;
    this.draw();
  }

  select(id, family = null) {
    this.current = id;
    this.family = family;
    this.draw();
  }

  draw() {
    // A menu or a field that is open keeps its place.
    if (this.list.querySelector(".menu, input")) return;
    const shown = this.rows.filter(({ id }) => !this.hidden.has(id));
    const groups = new Map();
    for (const row of shown) {
      const name = dayGroup(row.updated_at);
      groups.set(name, [...(groups.get(name) ?? []), row]);
    }
    const parts = [...groups].map(([name, rows]) =>
      h("section", {}, h("h2", {}, name), h("ul", {}, ...rows.map((row) => this.item(row)))),
    );
    if (!shown.length) parts.push(h("p.quiet", {}, t(this.search.value ? "nothingFound" : this.isArchive ? "archiveEmpty" : "noConversations")));
    if (this.hasMore) parts.push(h("button.more", { type: "button", onclick: guarded(() => this.more()) }, t("more")));
    const focused = this.list.contains(document.activeElement) ? document.activeElement : null;
    const address = focused?.closest("li")?.querySelector("a").getAttribute("href");
    this.list.replaceChildren(...parts);
    const item = address && [...this.list.querySelectorAll("li")].find((one) => one.querySelector(`a[href="${address}"]`));
    if (item) item.querySelector(focused.matches("button") ? "button" : "a").focus();
  }

  showArchive(isWanted) {
    this.isArchive = isWanted;
    this.limit = PAGE;
    byId("archive-switch").setAttribute("aria-pressed", String(isWanted));
    return this.reload();
  }

  more() {
    this.limit *= 2;
    return this.reload();
  }

  isCurrent(row) {
    return row.id === this.current || (this.family !== null && row.family === this.family);
  }

  item(row) {
    const link = h("a", { href: `/?c=${row.id}`, title: row.title || null, dir: "auto", "aria-current": this.isCurrent(row) ? "page" : null }, row.title || t("untitled"));
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.on.open(row.id);
    });
    const item = h("li", {}, link);
    const button = iconButton("dots", t("actionsOf", { title: row.title || t("untitled") }), () => openMenu(button, [
      { label: t("rename"), run: () => this.rename(row, item) },
      { label: t("exportMarkdown"), run: () => save(row, "markdown") },
      { label: t("exportJson"), run: () => save(row, "json") },
      { label: t(row.archived ? "unarchive" : "archive"), run: guarded(() => this.archive(row, !row.archived)) },
      { label: t("delete"), run: () => this.delete(row), danger: true },
    ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
    item.append(button);
    return item;
  }

  rename(row, item) {
    const field = h("input", { type: "text", maxlength: 200, "aria-label": t("title"), dir: "auto" });
    field.value = row.title;
    let isOver = false;
    const end = guarded(async (isWanted) => {
      if (isOver) return;
      isOver = true;
      const title = field.value.trim();
      field.remove();
      if (isWanted && title && title !== row.title) {
        row.title = title;
        await call("PATCH", conversationPath(row.id), { title });
        this.on.renamed(row);
      }
      this.draw();
    });
    field.addEventListener("keydown", (event) => {
      if (isComposing(event)) return;
      if (event.key === "Enter") end(true);
      if (event.key !== "Escape") return;
      event.stopPropagation();
      end(false);
    });
    field.addEventListener("blur", () => end(true));
    item.replaceChildren(field);
    field.focus();
    field.select();
  }

  // With all its versions; `isUndo`: the way back offers no further one.
  async archive(row, isArchived, { isUndo = false } = {}) {
    for (const id of await idsOfVersions(row)) await call("PATCH", conversationPath(id), { archived: isArchived });
    this.on.archived(row);
    await this.reload();
    const undo = { action: t("undo"), run: guarded(() => this.archive(row, !isArchived, { isUndo: true })) };
    const key = isArchived ? "archived" : "unarchived";
    if (!isUndo) toast(t(key, { title: row.title || t("untitled") }), undo);
  }

  // The row is hidden at once, and deleted when the time for taking it back is over.
  delete(row) {
    const restore = () => { this.hidden.delete(row.id); this.draw(); };
    const remove = guarded(async () => {
      if (!this.hidden.has(row.id)) return;
      try {
        for (const id of await idsOfVersions(row)) await call("DELETE", conversationPath(id));
        this.rows = this.rows.filter(({ id }) => id !== row.id);
        this.on.deleted(row, { isFinal: true });
      } finally {
        restore();
      }
    });
    this.hidden.set(row.id, [row.id]);
    // For the moment in which the page is left, when nothing can be looked up any more.
    idsOfVersions(row).then((ids) => { if (this.hidden.has(row.id)) this.hidden.set(row.id, ids); }, () => {});
    this.draw();
    if (this.isCurrent(row)) this.on.deleted(row, { isFinal: false });
    toast(t("deleted", { title: row.title || t("untitled") }), { action: t("undo"), run: restore, onGone: remove });
  }

  // The page is being left: what was deleted and not taken back is deleted now.
  deleteHidden() {
    for (const id of [...this.hidden.values()].flat()) {
      call("DELETE", conversationPath(id), undefined, { keepalive: true }).catch(() => {});
    }
    this.hidden.clear();
  }
}

// The first `most` rows of a list, and how many it has.
async function firstRows(most, query) {
  const results = [];
  for (;;) {
    query.set("limit", Math.min(MOST_AT_ONCE, most - results.length));
    query.set("offset", results.length);
    const page = await call("GET", `/api/conversations/?${query}`);
    results.push(...page.results);
    if (!page.results.length || results.length >= Math.min(most, page.count)) return { results, count: page.count };
  }
}

// A conversation is listed as one with all its versions, and deleted with them.
async function idsOfVersions(row) {
  if (!row.family) return [row.id];
  const { results } = await call("GET", `${conversationPath(row.id)}versions/`);
  return results.map(({ id }) => id);
}

function save(row, format) {
  const link = h("a", { href: `${conversationPath(row.id)}export/?format=${format}`, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}
