// The chat page: connects the list of conversations, the conversation, the field for questions and the drawer.

import { Account } from "./account.js";
import { Composer } from "./composer.js";
import { byId, h } from "./dom.js";
import { Memories } from "./memories.js";
import { watchService } from "./service_state.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { announceChange, onChangeElsewhere } from "./tabs.js";
import { config, t } from "./texts.js";
import { Thread } from "./thread.js";
import { watchTitle } from "./title_watch.js";
import { guarded, toast } from "./toasts.js";

const settings = new Settings();
const TITLES = { memories: t("memories"), account: t("account") };
// The views beside the chat; the account's exists for signed-in users alone.
const views = { memories: new Memories(), ...(config.user ? { account: new Account() } : {}) };

const composer = new Composer({
  send: guarded((text, context) => thread.send(text, context)),
  stop: () => thread.stop(),
});

const thread = new Thread(byId("thread"), {
  endSeen: (isSeen) => { byId("to-end").hidden = isSeen; },
  options: () => settings.requestOptions(),
  newConversation: () => settings.newConversation(),
  busy: (isBusy) => composer.setBusy(isBusy),
  announce: (text) => { byId("announcer").textContent = text; },
  open: (id) => openConversation(id),
  moved: (conversation) => showConversation(conversation),
  began: (id) => { composer.keep(); changed(id); },
  ended: (id) => changed(id),
  unsent: (text, context) => composer.restore(text, context.map(({ title, text: content }) => ({ name: title, text: content }))),
});

const sidebar = new Sidebar({
  open: (id) => openConversation(id),
  renamed: (row) => {
    if (row.id === thread.id) showTitle(row.title);
    announceChange(row.id);
  },
  archived: (row) => announceChange(row.id),
  deleted: (row, { isFinal }) => {
    if (isFinal) announceChange(row.id);
    else openConversation(null);
  },
});

const openConversation = guarded(async (id, { isShown = false } = {}) => {
  const address = id === null ? "/" : `/?c=${encodeURIComponent(id)}`;
  if (!isShown) history.pushState(null, "", address);
  showView("chat");
  closeSidebar();
  await openOrReport(id, "noSuchConversation", { isError: true });
  if (id === null) composer.focus();
});

// Open the conversation; where there is none, an empty page and a sentence.
async function openOrReport(id, sentence, options = {}) {
  try {
    await thread.open(id);
  } catch (error) {
    if (error.status !== 404) throw error;
    history.replaceState(null, "", "/");
    await thread.open(null);
    toast(t(sentence), options);
  }
}

// An answer began or ended: addresses, list and other tabs follow.
function changed(id) {
  const address = `/?c=${encodeURIComponent(id)}`;
  if (location.pathname + location.search !== address && thread.id === id) history.replaceState(null, "", address);
  sidebar.select(id, thread.conversation?.family ?? null);
  announceChange(id);
  guarded(() => sidebar.reload())();
}

function showConversation(conversation) {
  settings.show(conversation);
  showTitle(conversation?.title ?? "");
  sidebar.select(conversation?.id ?? null, conversation?.family ?? null);
  if (conversation && !thread.running) {
    watchTitle(conversation, ({ id, title }) => {
      if (id === thread.id) showTitle(title);
      announceChange(id);
      guarded(() => sidebar.reload())();
    });
  }
  if (!conversation && !thread.rows.length) thread.showEmpty(h("h2", {}, t("greeting")), h("p", {}, t("greetingHint")));
}

function showTitle(title) {
  byId("title").textContent = title;
  document.title = title ? `${title} · Gemma` : "Gemma";
}

function showView(name) {
  byId("chat-view").hidden = name !== "chat";
  for (const other of Object.keys(views)) {
    byId(`${other}-view`).hidden = name !== other;
    if (name === other) byId(`${other}-link`).setAttribute("aria-current", "page");
    else byId(`${other}-link`).removeAttribute("aria-current");
  }
  if (name === "chat") return;
  thread.detach();
  showTitle("");
  document.title = `${TITLES[name]} · Gemma`;
  sidebar.select(null);
  guarded(() => views[name].load())();
}

function closeSidebar() {
  document.body.classList.remove("sidebar-open");
  byId("menu").setAttribute("aria-expanded", "false");
}

function readAddress() {
  const query = new URLSearchParams(location.search);
  if (query.get("view") in views) return showView(query.get("view"));
  return openConversation(query.get("c"), { isShown: true });
}

byId("new-chat").addEventListener("click", (event) => { event.preventDefault(); openConversation(null); });
for (const name of Object.keys(views)) {
  byId(`${name}-link`).addEventListener("click", (event) => {
    event.preventDefault();
    history.pushState(null, "", `/?view=${name}`);
    showView(name);
    closeSidebar();
  });
}
byId("to-end").addEventListener("click", () => thread.showEnd());
byId("settings-button").addEventListener("click", () => settings.open());
byId("settings-close").addEventListener("click", () => settings.dialog.close());
byId("menu").addEventListener("click", () => {
  const isOpen = document.body.classList.toggle("sidebar-open");
  byId("menu").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) byId("search").focus();
});
byId("scrim").addEventListener("click", closeSidebar);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeSidebar(); });
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target, clientX, clientY }) => {
    const box = dialog.getBoundingClientRect();
    const isInside = clientX >= box.left && clientX <= box.right && clientY >= box.top && clientY <= box.bottom;
    if (target === dialog && !isInside) dialog.close();
  });
}
window.addEventListener("popstate", readAddress);
onChangeElsewhere(guarded(async (id) => {
  await sidebar.reload();
  if (id !== thread.id || thread.running || byId("chat-view").hidden || thread.isEdited) return;
  await openOrReport(id, "deletedElsewhere");
}));

window.addEventListener("signedout", () => {
  byId("sign-in-again").href = `/sign-in/?next=${encodeURIComponent(location.pathname + location.search)}`;
  byId("signed-out").hidden = false;
});

composer.setBusy(false);
watchService();
guarded(() => sidebar.reload())();
readAddress();
