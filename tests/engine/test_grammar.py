"""Answers that obey a grammar: masks, drafts, ends, and the position restored from the tokens, over both backends."""

import json
import queue
import threading
from typing import Any

import pytest

from inference.engine.grammar.matcher import GrammarCompiler
from inference.engine.grammar.sources import from_json_schema, from_lark, from_regex
from inference.engine.params import ThoughtMarks
from inference.engine.process import runner
from inference.engine.protocol.frames import Stop, ToRunner
from tests.engine.harness import Harness

PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def is_person(text: str) -> bool:
    person = json.loads(text)
    return person["name"] in ("Ann", "Bob") and 0 <= person["age"] <= 9 and len(person) == 2


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_obeys_its_schema(harness: Harness, temperature: float) -> None:
    for seed in range(4):
        name = f"a{seed}"
        harness.ask(name, "Who?", grammar=from_json_schema(PERSON), temperature=temperature, seed=seed, max_tokens=100)
        harness.run()
        assert is_person(harness.text(name))
        assert harness.ended(name).reason == "stop"


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (from_json_schema({"const": {"a": [1, None]}}), '{"a":[1,null]}'),
        (from_regex("abc"), "abc"),
        (from_regex("^abc$"), "abc"),
        (from_lark('start: "x" y\ny: "yz"'), "xyz"),
        (from_lark('root ::= "x" y\ny ::= "yz"'), "xyz"),
    ],
)
def test_an_answer_ends_with_its_grammar(harness: Harness, grammar: str, text: str) -> None:
    harness.ask("a", "Say something else", grammar=grammar, ignore_eos=True)
    harness.run()
    assert "".join(harness.text("a").split()) == text
    assert harness.ended("a").reason == "stop"


def test_an_answer_that_is_cut_has_the_beginning_of_one(harness: Harness) -> None:
    harness.ask("a", "Count", grammar=from_regex("[0-9]{200}"), max_tokens=3)
    harness.run()
    assert harness.text("a").isdigit()
    assert harness.ended("a").reason == "length"


def test_the_scripted_answer_is_kept_where_it_obeys() -> None:
    harness = Harness.fake()
    harness.ask("a", '[[say: {"name": "Bob", "age": 7}]]', grammar=from_json_schema(PERSON))
    harness.run()
    assert harness.text("a") == '{"name": "Bob", "age": 7}'


@pytest.mark.parametrize("n_emitted", [1, 2, 3, 5, 8])
def test_a_continued_answer_is_the_same(harness: Harness, n_emitted: int) -> None:
    options: dict[str, Any] = {"grammar": from_json_schema(PERSON), "temperature": 1.0, "seed": 5}
    harness.ask("whole", "Who?", **options)
    harness.run()
    tokens = harness.tokens("whole")[:n_emitted]
    harness.ask("rest", "Who?", emitted=tokens, **options)
    harness.run()
    whole = harness.backend.vocabulary.text(tokens) + harness.text("rest")
    assert is_person(whole)


def test_an_answer_that_was_complete_ends_at_once(harness: Harness) -> None:
    grammar = from_regex("abc")
    emitted = harness.backend.vocabulary.encode("abc", special=False)
    harness.ask("a", "x", grammar=grammar, emitted=emitted)
    harness.run()
    assert harness.tokens("a") == []
    assert harness.ended("a").reason == "stop"


def test_tokens_of_another_answer_are_refused(harness: Harness) -> None:
    harness.ask("a", "x", grammar=from_regex("abc"), emitted=harness.backend.vocabulary.encode("xyz", special=False))
    harness.run()
    assert harness.rejected("a").code == "grammar_failed"


def test_a_grammar_that_is_none_is_refused(harness: Harness) -> None:
    for number, grammar in enumerate(["{", from_lark("start: other"), from_lark('start: "a'), from_json_schema(False)]):
        harness.ask(f"a{number}", "x", grammar=grammar)
        harness.run()
        assert harness.rejected(f"a{number}").code == "grammar_failed"


def test_tokens_that_a_bias_forbids_leave_no_answer(harness: Harness) -> None:
    forbidden = dict.fromkeys(range(harness.backend.vocabulary.n_tokens))
    harness.ask("a", "x", grammar=from_regex("abc"), logit_bias=forbidden)
    harness.ask("b", "x", grammar=from_regex("abc"))
    harness.run()
    assert harness.rejected("a").code == "grammar_failed"
    assert harness.text("b") == "abc"


def test_no_grammar_reaches_a_control_token(harness: Harness) -> None:
    vocabulary = harness.backend.vocabulary
    turn = vocabulary.encode("<start_of_turn>", special=True)[0]
    for number, text in enumerate([f"start: <[{turn}]>", "start: <start_of_turn>"]):
        harness.ask(f"a{number}", "x", grammar=from_lark(text))
        harness.run()
        assert harness.rejected(f"a{number}").code == "grammar_failed"


def test_drafts_that_leave_the_grammar_are_cut() -> None:
    harness = Harness.fake(draft_max=8)
    while harness.loop.work_while_idle():
        pass
    people = from_json_schema({"type": "array", "items": PERSON, "minItems": 6, "maxItems": 6})
    persons = ", ".join(['{"name": "Bob", "age": 7}'] * 5 + ['{"name": "Bob", "age": 77}'])
    harness.ask("a", f"[[say: [{persons}]]]", grammar=people, temperature=1.0, max_tokens=400)
    harness.run()
    assert len(json.loads(harness.text("a"))) == 6
    assert sum(step.n_accepted for step in harness.steps()) > 50


def test_answers_beside_it_are_as_without_it(harness: Harness) -> None:
    harness.ask("alone", "Hello", max_tokens=12)
    harness.run()
    harness.ask("free", "Hello", max_tokens=12)
    harness.ask("bound", "Hello", grammar=from_json_schema(PERSON), max_tokens=60)
    harness.run()
    assert harness.tokens("free") == harness.tokens("alone")
    assert is_person(harness.text("bound"))


def test_a_thought_is_free_and_the_answer_is_not(harness: Harness) -> None:
    vocabulary = harness.backend.vocabulary
    close = vocabulary.encode("</t>", special=False)
    thought = ThoughtMarks(opens=["<t>"], closes=["</t>"], is_open=True, limit=3, limit_ids=close)
    options: dict[str, Any] = {"thought": thought, "grammar": from_json_schema(PERSON), "max_tokens": 120}
    harness.ask("a", "[[say: Let me think about it]]", **options)
    harness.run()
    assert is_person(harness.text("a"))
    tokens = harness.tokens("a")
    assert tokens[3 : 3 + len(close)] == close
    for n_emitted in (1, 3, 4, 5 + len(close)):
        harness.ask(f"b{n_emitted}", "[[say: Let me think about it]]", emitted=tokens[:n_emitted], **options)
        harness.run()
        rest = harness.tokens(f"b{n_emitted}")
        assert is_person(vocabulary.text([*tokens[:n_emitted], *rest][3 + len(close) :]))


@pytest.mark.parametrize("quiet_secs", [0.0, 60.0])
def test_the_vocabulary_is_read_ahead_after_a_long_pause_only(
    monkeypatch: pytest.MonkeyPatch, quiet_secs: float
) -> None:
    waits_for_stop = threading.Event()
    monkeypatch.setattr(runner, "QUIET_SECS", 0.0)
    monkeypatch.setattr(runner, "LONG_QUIET_SECS", quiet_secs)
    harness = Harness.fake()
    monkeypatch.setattr(harness.loop.guard, "begin_wait", waits_for_stop.set)
    inbox: queue.SimpleQueue[ToRunner] = queue.SimpleQueue()
    read = GrammarCompiler.read_vocabulary
    has_read = threading.Event()

    def read_vocabulary(compiler: GrammarCompiler) -> None:
        read(compiler)
        has_read.set()

    monkeypatch.setattr(GrammarCompiler, "read_vocabulary", read_vocabulary)
    serving = threading.Thread(target=runner.serve, args=(harness.loop, inbox))
    serving.start()
    assert (waits_for_stop if quiet_secs else has_read).wait(30)
    inbox.put(Stop(0.0))
    serving.join(30)
    assert harness.loop.is_ready_for_grammars is (quiet_secs == 0)


def test_a_vocabulary_without_an_end_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness.fake()
    monkeypatch.setattr(type(harness.backend.vocabulary), "eog_tokens", frozenset())
    assert harness.loop.is_ready_for_grammars
    harness.ask("a", "Who?", grammar=from_regex("abc"))
    assert harness.rejected("a").code == "grammar_failed"
