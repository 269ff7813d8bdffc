// The conversation on the page: its questions and answers, and the one answer that is being made.

import { AnswerView } from "./answer_view.js";
import { allPages, ApiError, call, conversationPath } from "./api.js";
import { h } from "./dom.js";
import { QuestionView } from "./question_view.js";
import { ask, follow } from "./stream.js";
import { t } from "./texts.js";
import { guarded } from "./toasts.js";
import { versionsOf } from "./versions.js";

// A reader this near to the end has reached it.
const NEAR_END_PX = 40;

export class Thread {
  // `on`: options() of a request; newConversation(): fields of one to create first, or null; endSeen(is); began(id) and ended(id) of an answer; busy(is), announce(text), moved(conversation).
  constructor(element, on) {
    this.element = element;
    this.scroller = element.parentElement;
    this.on = on;
    this.conversation = null;
    this.rows = [];
    this.running = null;
    this.opening = 0;
    // Whether the page shows what is added to its end, and where it was when it last looked.
    this.follows = true;
    this.place = 0;
    this.scroller.addEventListener("scroll", () => this.noteScroll(), { passive: true });
  }

  get id() {
    return this.conversation?.id ?? null;
  }

  // Show a stored conversation, or an empty page for null. An answer that is being made goes on appearing.
  async open(id) {
    const ticket = (this.opening += 1);
    if (id === null) return this.show(null, []);
    const path = conversationPath(id);
    const [conversation, messages] = await Promise.all([call("GET", path), allPages(`${path}messages/`)]);
    if (ticket !== this.opening) return undefined;
    return this.show(conversation, messages);
  }

  show(conversation, messages) {
    const stays = conversation !== null && conversation.id === this.id;
    const place = this.scroller.scrollTop;
    this.follows = !stays || this.follows;
    this.detach();
    this.conversation = conversation;
    this.rows = [];
    this.element.replaceChildren();
    for (const message of messages) this.append(this.viewOf(message));
    this.restoreContext();
    if (this.follows) this.scrollToEnd();
    else this.scroller.scrollTop = this.place = place;
    this.reportEnd();
    this.on.moved(conversation);
    const last = messages.at(-1);
    if (last?.generation_id && ["preparing", "queued", "running"].includes(last.status)) {
      const view = this.rows.at(-1);
      this.run(view, (options) => follow(last.generation_id, options));
    }
    return this.showVersions();
  }

  viewOf(message) {
    if (message.role === "user") return this.question(message.content, { messageId: message.id });
    const view = this.answer();
    view.show(message);
    return view;
  }

  // The texts that were sent beside a question are stored as sources of its answer.
  restoreContext() {
    this.rows.forEach((row, index) => {
      const documents = row instanceof AnswerView ? row.sources.filter(({ kind }) => kind === "document") : [];
      const question = this.rows[index - 1];
      if (documents.length && question instanceof QuestionView) question.setContext(documents.map(({ title, text }) => ({ title, text })));
    });
  }

  question(text, facts) {
    return new QuestionView(text, { edit: (view, changed) => this.replace(view, changed) }, facts);
  }

  answer() {
    return new AnswerView({
      again: (view) => this.replace(view),
      onGrow: () => { if (this.follows) this.scrollToEnd(); else this.reportEnd(); },
    });
  }

  append(view) {
    this.element.querySelector(":scope > .empty")?.remove();
    this.rows.push(view);
    this.element.append(view.element);
    return view;
  }

  // Send a question at the end of the conversation, with texts beside it.
  async send(text, context = []) {
    if (this.running) return;
    this.dropRefused();
    this.append(this.question(text, { context }));
    const answer = this.append(this.answer());
    this.follows = true;
    this.scrollToEnd();
    const options = this.on.options();
    await this.run(answer, async function* start(stream) {
      const setUp = this.conversation ? null : this.on.newConversation();
      if (setUp) {
        const created = await call("POST", "/api/conversations/", setUp);
        // Another conversation may have been opened meanwhile.
        stream.signal.throwIfAborted();
        this.conversation = created;
      }
      const ids = this.id ? { conversation_id: this.id } : {};
      yield* ask({ message: text, auto_title: true, ...ids, ...withContext(context), ...options }, stream);
    }.bind(this));
  }

  // Answer a question again, changed or not: the service branches the conversation off before it.
  async replace(view, changed) {
    if (this.running) return;
    const at = this.rows.indexOf(view);
    const first = view instanceof AnswerView ? at - 1 : at;
    const question = this.rows[first];
    const replaces = view.messageId ?? this.rows[first + 1]?.messageId;
    const text = changed ?? question.text;
    const { context } = question;
    const hadFocus = this.element.contains(document.activeElement);
    this.cut(first);
    if (!replaces || !this.id) {
      await this.send(text, context);
      return;
    }
    this.append(this.question(text, { context }));
    const answer = this.append(this.answer());
    if (hadFocus) answer.focus();
    this.follows = true;
    this.scrollToEnd();
    const message = changed === undefined ? {} : { message: changed };
    const body = { conversation_id: this.id, replaces, auto_title: true, ...message, ...withContext(context), ...this.on.options() };
    await this.run(answer, (stream) => ask(body, stream));
  }

  // A question that was refused is not stored.
  dropRefused() {
    if (this.rows.length && !this.rows.at(-1).messageId) this.cut(this.rows.length - 2);
  }

  cut(from) {
    for (const row of this.rows.splice(from)) row.element.remove();
  }

  // Fill a view from a stream until its last line, or until another conversation is opened.
  async run(view, begin) {
    const controller = new AbortController();
    const running = { view, controller, isStopped: false };
    this.running = running;
    view.begin();
    this.on.busy(true);
    try {
      const options = { signal: controller.signal, onLost: () => view.setStatus(t("reconnecting")) };
      for await (const line of begin(options)) {
        if (controller.signal.aborted) return;
        this.noteLine(running, line);
      }
    } catch (error) {
      if (controller.signal.aborted) return;
      if (!(error instanceof ApiError || error instanceof TypeError)) throw error;
      const question = this.rows[this.rows.indexOf(view) - 1];
      if (error.status === 401 && question && !question.messageId && !view.generationId) {
        this.on.unsent(question.text, question.context ?? []);
      }
      view.fail(error);
      this.on.announce(t("failed"));
    } finally {
      if (this.running === running) this.ended();
    }
  }

  noteLine(running, line) {
    running.view.push(line);
    if (line.conversation_id && line.conversation_id !== this.id) {
      this.conversation = { ...this.conversation, id: line.conversation_id };
      this.on.began(line.conversation_id);
    } else if (line.conversation_id && !line.done) {
      this.on.began(line.conversation_id);
    }
    if (running.isStopped) this.cancel(running);
    if (line.done) {
      this.on.announce(t(line.error ? "failed" : "answerComplete"));
      if (this.follows) this.scrollToEnd();
    }
  }

  ended() {
    this.running = null;
    this.on.busy(false);
    if (this.id) this.on.ended(this.id);
    guarded(() => this.learnIds())();
  }

  // The ids of new messages, by which they can be changed, and the versions that there are now.
  async learnIds() {
    const { id, rows } = this;
    if (!id) return;
    const [conversation, messages] = await Promise.all([call("GET", conversationPath(id)), allPages(`${conversationPath(id)}messages/`)]);
    if (this.id !== id || this.rows !== rows || this.running) return;
    if (rows.some((row, index) => row instanceof QuestionView && messages[index] && messages[index].content !== row.text)) {
      // Another browser went on with the conversation: a question that was refused for it is given back.
      const [question, answer] = rows.slice(-2);
      if (answer?.outcome?.error && !question.messageId) this.on.unsent(question.text, question.context);
      await this.show(conversation, messages);
      return;
    }
    this.conversation = conversation;
    this.on.moved(conversation);
    rows.forEach((row, index) => { row.messageId = messages[index]?.id ?? row.messageId; });
    await this.showVersions();
  }

  async showVersions() {
    const { conversation, rows } = this;
    if (!conversation?.family) return;
    const versions = await versionsOf(conversation);
    if (rows !== this.rows) return;
    for (const { position, place, ids } of versions) {
      const answer = rows.slice(position).find((row) => row instanceof AnswerView);
      answer?.showVersions(place, ids.length, (to) => this.switchVersion(ids[to], rows.indexOf(answer), to > place));
    }
  }

  // Open another version; the keyboard stays at the button that leads on in the same direction, as long as there is one.
  async switchVersion(id, index, isForward) {
    await this.on.open(id);
    const buttons = [...(this.rows[index]?.element.querySelectorAll(".versions button:not(:disabled)") ?? [])];
    buttons.at(isForward ? -1 : 0)?.focus();
  }

  // Stop the answer; its text so far stays.
  stop() {
    if (!this.running || this.running.isStopped) return;
    this.running.isStopped = true;
    this.running.view.setStatus(t("stopping"));
    this.cancel(this.running);
  }

  cancel(running) {
    const { generationId } = running.view;
    if (!generationId || running.isCancelled) return;
    running.isCancelled = true;
    guarded(async () => {
      try {
        await call("POST", `/api/generations/${encodeURIComponent(generationId)}/cancel`);
      } catch (error) {
        if (error.code !== "already_ended") throw error;
      }
    })();
  }

  // Leave a running answer to itself; it goes on without this page.
  detach() {
    if (!this.running) return;
    this.running.controller.abort();
    this.running = null;
    this.on.busy(false);
  }

  // Whether a question is being changed, which showing the conversation again would undo.
  get isEdited() {
    return this.element.querySelector(".edit") !== null;
  }

  get isNearEnd() {
    return this.toEnd < NEAR_END_PX;
  }

  get toEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  // A reader who scrolls up stays there until they reach the end again. A text that gets shorter moves the page, too.
  noteScroll() {
    const { scrollTop } = this.scroller;
    if (scrollTop < this.place && this.toEnd > 1) this.follows = false;
    else if (this.isNearEnd) this.follows = true;
    this.place = scrollTop;
    this.reportEnd();
  }

  reportEnd() {
    this.on.endSeen(this.toEnd < this.scroller.clientHeight / 2);
  }

  showEnd() {
    this.follows = true;
    this.scrollToEnd();
  }

  scrollToEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.place = this.scroller.scrollTop;
  }

  showEmpty(...children) {
    this.element.replaceChildren(h("div.empty", {}, ...children));
  }
}

const withContext = (context) => (context.length ? { context } : {});
