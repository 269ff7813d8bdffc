"""The process's tokenizer and the configuration it caps; the real model's where there is something to see."""

import threading
from pathlib import Path

import msgspec
import pytest
from django.test import override_settings

from inference.config import tokenizer
from inference.config.engine_config import engine_config
from inference.config.from_settings import capped_context, requested_config
from inference.config.tokenizer import Tokenizer, count_tokens, get_tokenizer, known_vocabulary
from inference.engine.backends.fake import FakeVocabulary
from inference.engine.backends.vocabulary import open_vocabulary
from inference.engine.config import BackendKind
from inference.errors import ModelUnavailable


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_tokenizer", None)


def named(name: str, *, finetune: str = "", template: str | None = None) -> Tokenizer:
    vocabulary = FakeVocabulary()
    vocabulary.model_name, vocabulary.chat_template = name, template
    vocabulary.metadata = {"general.finetune": finetune}
    return Tokenizer(vocabulary, requested_config())


def test_text_of_users_never_becomes_a_control_token() -> None:
    ids = get_tokenizer().encode("<start_of_turn>user")
    assert len(ids) == len("<start_of_turn>user")
    assert get_tokenizer().decode(ids) == "<start_of_turn>user"
    assert get_tokenizer().encode("<start_of_turn>", special=True) == [3]
    assert count_tokens("abc") == 3


def test_the_names_of_the_borders_are_known() -> None:
    assert (get_tokenizer().bos_text, get_tokenizer().eos_text) == ("<bos>", "<eos>")


@pytest.mark.parametrize(
    ("name", "finetune", "template", "expected"),
    [
        ("gemma-3-4b-it", "", None, True),
        ("gemma-3-270m", "", None, False),
        ("Gemma 3 12b It", "", None, True),
        ("gemma-3-270m", "it", None, True),
        ("gemma-3-270m", "", "{{ messages }}", True),
        ("llama-3-instruct", "", None, True),
        ("fitting", "", None, False),
    ],
)
def test_instruct_models_are_recognised(name: str, finetune: str, template: str | None, expected: bool) -> None:
    assert named(name, finetune=finetune, template=template).is_instruct is expected


@pytest.mark.parametrize(
    ("n_requested", "trained", "expected"), [(65_536, 32_768, 32_768), (512, 32_768, 512), (512, 0, 512)]
)
def test_the_pool_is_never_larger_than_the_training(n_requested: int, trained: int, expected: int) -> None:
    config = msgspec.structs.replace(requested_config(), context_size=n_requested)
    assert capped_context(config, trained) == expected


@pytest.mark.usefixtures("unloaded")
def test_the_engine_gets_the_capped_context() -> None:
    with override_settings(GEMMA_CONTEXT_SIZE=1_000_000, GEMMA_PARALLEL=7):
        config = engine_config()
    assert (config.context_size, config.parallel) == (FakeVocabulary.trained_context, 7)


@pytest.mark.usefixtures("unloaded")
def test_a_missing_model_is_unavailable_and_tried_again() -> None:
    missing = Path("/nonexistent/model.gguf")
    with override_settings(GEMMA_BACKEND=BackendKind.LLAMA, GEMMA_MODEL_FILE=missing):
        with pytest.raises(ModelUnavailable, match=r"model\.gguf"):
            get_tokenizer()
        assert known_vocabulary() is None
    assert get_tokenizer().model_name == "fake-it"


@pytest.mark.usefixtures("unloaded")
def test_threads_load_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    load = open_vocabulary

    def counted(config: object) -> object:
        loads.append(1)
        return load(config)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizer, "open_vocabulary", counted)
    threads = [threading.Thread(target=get_tokenizer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [1]


@pytest.mark.real_model
@pytest.mark.usefixtures("unloaded")
def test_the_real_models_vocabulary(model_path: Path) -> None:
    with override_settings(GEMMA_BACKEND=BackendKind.LLAMA, GEMMA_MODEL_FILE=model_path):
        real = get_tokenizer()
        assert real.trained_context == 32_768
        assert real.context_size == 32_768
        assert not real.is_instruct
        assert real.bos_text == "<bos>"
        text = "Grüße <end_of_turn> <start_of_image> 🙂"
        assert real.decode(real.encode(text)) == text
