"""Stored conversations of ``bench.remember`` without the service around the model: prompts and summaries by its code,
all questions of a way in one batch. Answers differ from the service's only by the order of additions in a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from django.utils import timezone

from bench.remember_data import Talk, only_facts
from bench.remember_play import ANSWER_TOKENS, TURN_TOKENS, WAYS, judge
from bench.remember_results import FACTS_ALONE, Outcome
from chat.enums import Strategy
from chat.models import Role
from chat.prompting.builder import BuiltPrompt, PromptBuilder
from chat.prompting.context_window import HistorySummary
from chat.prompting.message_groups import DialogueMessage, group_messages
from chat.prompting.recalled import Recall, Recaller
from chat.prompting.sequence_params import sequence_params
from chat.rag.vectors import embedding
from chat.rag.vectors.embedding import EncoderInput
from chat.recall.passages import SaidPassage, context_of, said_passages
from chat.recall.search import search
from chat.schemas.requests import RunOptions
from chat.services.questions.query_rewriting import earlier_questions, rewrite_query
from chat.services.turn_recall import N_NEAR
from chat.summarization.checking import problem_of
from chat.summarization.extract import extract, statements
from chat.summarization.policy import end_of_summarized
from chat.summarization.rolling import MAX_REJECTED
from chat.summarization.summarizer import Summarizer
from inference.config.tokenizer import get_tokenizer
from inference.engine.backends.backend import Logits, Slice
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig
from inference.engine.params import SequenceParams
from inference.engine.sampling.native_chain import Candidates
from inference.engine.sampling.sampler import Sampler

# Sequences at a time, and cells for all of them: a conversation in plain view, and its questions.
N_SLOTS, N_CELLS = 17, 16_384
QUESTION = RunOptions(max_tokens=ANSWER_TOKENS, temperature=0.0, stop=("\n",))


class Model:
    """Generates texts of many prompts at a time; slot 0 keeps the prefix that they share."""

    def __init__(self, config: EngineConfig) -> None:
        self._backend = LlamaBackend(config, n_slots=N_SLOTS)
        self._vocabulary = self._backend.vocabulary
        self._candidates = Candidates(self._vocabulary.n_tokens)
        self._prefix: list[int] = []

    def texts(self, prompts: Sequence[Sequence[int]], params: SequenceParams) -> list[str]:
        """Return the text that follows each prompt, at most ``N_SLOTS - 1`` of them."""
        n_shared = self._compute_prefix(prompts)
        for slot in range(1, len(prompts) + 1):
            self._backend.remove(slot)
            self._backend.copy(0, slot, n_shared)
        logits = self._prefill({slot: list(prompt) for slot, prompt in enumerate(prompts, start=1)}, n_shared)
        sampler = Sampler(params.sampling, self._candidates)
        outputs: list[list[int]] = [[] for _ in prompts]
        running = list(range(len(prompts)))
        while running:
            for number in running:
                history = [*prompts[number], *outputs[number]]
                outputs[number].append(sampler.sample(logits[number], history, len(outputs[number]) + 1))
            running = [number for number in running if not self._is_complete(outputs[number], params)]
            ends = [len(prompts[number]) + len(outputs[number]) - 1 for number in running]
            parts = [Slice(n + 1, end, outputs[n][-1:], 1) for n, end in zip(running, ends, strict=True)]
            for number, row in zip(running, self._decode(parts), strict=True):
                logits[number] = row
        return [self._text(output, params) for output in outputs]

    def _compute_prefix(self, prompts: Sequence[Sequence[int]]) -> int:
        first = prompts[0][: min(map(len, prompts)) - 1]
        columns = zip(first, *prompts, strict=False)
        n_shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        prefix = list(first[:n_shared])
        pairs = zip(prefix, self._prefix, strict=False)
        n_kept = min(sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), max(0, n_shared - 1))
        self._backend.trim(0, n_kept)
        self._prefill({0: prefix}, n_kept)
        self._prefix = prefix
        return n_shared

    def _prefill(self, prompts: dict[int, list[int]], start: int) -> list[Logits]:
        """Compute the prompts from ``start`` on, by slot, in batches that are full: the fewer, the cheaper."""
        rows: dict[int, Logits] = {}
        parts: list[Slice] = []
        left = self._backend.batch_size
        for slot, prompt in prompts.items():
            at = start
            while at < len(prompt):
                part = Slice(slot, at, prompt[at : at + left], 1)
                parts, at, left = [*parts, part], at + len(part.tokens), left - len(part.tokens)
                if not left:
                    rows |= self._rows(parts)
                    parts, left = [], self._backend.batch_size
        return list((rows | self._rows(parts)).values())

    def _rows(self, parts: Sequence[Slice]) -> dict[int, Logits]:
        return {part.slot: row.copy() for part, row in zip(parts, self._decode(parts), strict=True)}

    def _decode(self, parts: Sequence[Slice]) -> list[Logits]:
        if not parts:
            return []
        rows = self._backend.decode(parts)
        if rows is None:
            raise RuntimeError(f"{N_CELLS} cells are not enough for {len(parts)} sequences")
        return rows

    def _is_complete(self, output: Sequence[int], params: SequenceParams) -> bool:
        if output[-1] in self._vocabulary.eog_tokens or len(output) >= params.max_tokens:
            return True
        text = self._vocabulary.text(list(output)).lstrip()
        return any(stop in text for stop in params.stop)

    def _text(self, output: Sequence[int], params: SequenceParams) -> str:
        ids = [token for token in output if token not in self._vocabulary.eog_tokens]
        text = self._vocabulary.text(ids).lstrip()
        return min((text.split(stop)[0] for stop in params.stop), key=len, default=text).strip()


@dataclass(frozen=True, kw_only=True)
class StoredTalk:
    """A conversation with the vectors of its passages."""

    talk: Talk
    dialogue: list[DialogueMessage]
    passages: list[SaidPassage]

    @classmethod
    def of(cls, talk: Talk) -> "StoredTalk":
        dialogue = [
            DialogueMessage(role, text)
            for turn in talk.turns
            for role, text in zip((Role.USER, Role.ASSISTANT), turn, strict=True)
        ]
        passages, encoding = said_passages(dialogue, None, 0), embedding.target_encoding()
        inputs = []
        for passage in passages:
            before = dialogue[passage.position - 1].text if passage.position else ""
            whole = dialogue[passage.position].text
            inputs.append(EncoderInput(passage.text, context_of(passage.role, whole, passage.part.start, before)))
        vectors = embedding.embed_passages(inputs, encoding)
        if vectors is None:
            raise RuntimeError(embedding.unavailable_reason(encoding))
        with_vectors = [
            replace(passage, part=passage.part._replace(embedding=embedding.as_bytes(vector), encoding=encoding))
            for passage, vector in zip(passages, vectors, strict=True)
        ]
        return cls(talk=talk, dialogue=dialogue, passages=with_vectors)

    def recaller(self, question: str) -> Recaller:
        def recall(n_messages: int) -> Recall:
            rewritten = rewrite_query(question, earlier_questions(self._asked(question)))
            return search(
                rewritten.text,
                self.passages,
                now=timezone.localtime(),
                n_searched=max(n_messages, len(self.dialogue) - N_NEAR),
            )

        return recall

    def prompt(self, question: str, options: dict[str, Any], summary: HistorySummary) -> BuiltPrompt:
        builder = PromptBuilder(
            system_prompt="",
            max_tokens=ANSWER_TOKENS,
            strategy=Strategy(options["strategy"]),
            summary=summary,
            recaller=self.recaller(question) if options.get("recall") else None,
        )
        return builder.build(self._asked(question))

    def _asked(self, question: str) -> list[DialogueMessage]:
        return [*self.dialogue, DialogueMessage(Role.USER, question)]


class Summary:
    """A rolling summary in the making, as ``chat.summarization.rolling`` makes it. ``generates`` False: an extract."""

    def __init__(self, stored: StoredTalk, *, generates: bool) -> None:
        builder = PromptBuilder(system_prompt="", max_tokens=TURN_TOKENS, strategy=Strategy.SUMMARIZE)
        groups = group_messages(stored.dialogue)
        window = builder.context_window(groups)
        end = end_of_summarized(window, window.as_follow_ups([group.exchange for group in groups])) or 0
        self.n_messages = sum(group.n_messages for group in groups[:end])
        self.summarizer = Summarizer.of(builder.budget)
        texts = [(message.role, message.text) for message in stored.dialogue[: self.n_messages]]
        self.pieces = self.summarizer.pieces(texts) if texts else []
        self.text, self.piece, self.n_rejected, self.notes = "", 0, 0, list[str]()
        while not generates and not self.is_complete:
            self._take_extract()

    @property
    def is_complete(self) -> bool:
        return self.piece == len(self.pieces)

    @property
    def history(self) -> HistorySummary:
        return HistorySummary(text=self.text, n_messages=self.n_messages if self.text else 0, version=bool(self.text))

    def prompt(self) -> list[int]:
        return self.summarizer.prompt(self.pieces[self.piece], self.text, is_list=bool(self.n_rejected))

    def take(self, text: str) -> None:
        piece = self.pieces[self.piece]
        problem = problem_of(text, f"{self.text}\n{piece}", statements(self.pieces, self.piece, self.text))
        if problem:
            self.notes.append(f"piece {self.piece + 1}: {problem}")
        if not problem:
            self.text, self.piece, self.n_rejected = text, self.piece + 1, 0
        elif self.n_rejected < MAX_REJECTED:
            self.n_rejected += 1
        else:
            self._take_extract()

    def _take_extract(self) -> None:
        limit, count = self.summarizer.budget.summary_limit, self.summarizer.count
        self.text = extract(self.pieces, self.piece, self.text, limit=limit, count=count) or self.text
        self.piece, self.n_rejected = self.piece + 1, 0


def summarize_all(model: Model, stored: Sequence[StoredTalk]) -> list[Summary]:
    """Generate the summaries of conversations, a piece of each at a time."""
    summaries = [Summary(talk, generates=True) for talk in stored]
    while unfinished := [summary for summary in summaries if not summary.is_complete]:
        is_second = unfinished[0].n_rejected > 0
        batch = [summary for summary in unfinished if (summary.n_rejected > 0) is is_second]
        summarizer = batch[0].summarizer
        options = summarizer.other_options if is_second else summarizer.options
        params = _params(replace(options, seed=unfinished[0].piece), summarizer.budget.context_size)
        for summary, text in zip(batch, model.texts([summary.prompt() for summary in batch], params), strict=True):
            summary.take(text)
    return summaries


def measure(
    model: Model, talks: Sequence[Talk], missing: Sequence[Sequence[Outcome]], context: int
) -> Iterator[Outcome]:
    """Yield the outcomes of the ways of each talk, whose summaries are generated together first."""
    get_tokenizer().context_size = context
    stored = [StoredTalk.of(talk) for talk in talks]
    needs_summary = any(outcome.way in ("summary", "both") for outcomes in missing for outcome in outcomes)
    generated = summarize_all(model, stored) if needs_summary else [None] * len(stored)
    for talk, outcomes, summary in zip(stored, missing, generated, strict=True):
        for outcome in outcomes:
            used = None
            if outcome.way in ("summary", "both"):
                used = summary
            elif outcome.way.startswith("extract"):
                used = Summary(talk, generates=False)
            if used:
                outcome.summary, outcome.summary_note = used.text, "; ".join(used.notes)
            asked = StoredTalk.of(only_facts(talk.talk)) if outcome.way == FACTS_ALONE else talk
            _ask(model, asked, outcome, used.history if used else HistorySummary())
            yield outcome


def _ask(model: Model, stored: StoredTalk, outcome: Outcome, summary: HistorySummary) -> None:
    questions = [fact.question for fact in stored.talk.facts] + stored.talk.unanswerable
    prompts = [stored.prompt(question, WAYS[outcome.way], summary) for question in questions]
    answers = model.texts([prompt.ids for prompt in prompts], _params(QUESTION, outcome.settings.context))
    rows = []
    for question, prompt, answer in zip(questions, prompts, answers, strict=True):
        history = dict(prompt.history_note)
        recalled = [passage["position"] for passage in history.pop("recalled", [])]
        row = {"question": question, "answer": answer, "recalled": recalled, "history": history}
        rows.append(row | {"n_prompt": len(prompt.ids)})
    judge(stored.talk, outcome, rows)


def _params(options: RunOptions, context: int) -> SequenceParams:
    return sequence_params(options, None, n_prompt=0, context_size=context)


def open_model(threads: int) -> Model:
    config = get_tokenizer().config
    return Model(EngineConfig(model_path=config.model_path, threads=threads, context_size=N_CELLS, parallel=N_SLOTS))
