"""What everyone may know of a model without its weights: text to tokens, tokens to text, metadata.

Knows which implementation a configuration names; each is in its own module.
"""

from collections.abc import Mapping
from typing import Protocol

from inference.engine.backends.fake import FakeVocabulary
from inference.engine.backends.gguf_header import check_model_file
from inference.engine.backends.llama import LlamaModel
from inference.engine.backends.llama_vocabulary import LlamaVocabulary
from inference.engine.config import BackendKind, EngineConfig


class Vocabulary(Protocol):
    """Immutable; every method may be called from any thread."""

    n_tokens: int
    bos: int | None
    eos: int | None
    metadata: Mapping[str, str]
    model_name: str
    trained_context: int
    chat_template: str | None
    fingerprint: str

    @property
    def eog_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""
        ...

    def encode(self, text: str, *, special: bool, limit: int | None = None) -> list[int]:
        """Token ids, no BOS added. With ``special=False`` never a control token, whatever the text says.

        With ``limit`` a long text may be encoded only until there are more than ``limit`` ids: enough to refuse it.
        """
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text; nothing for a control token."""
        ...

    def text(self, ids: list[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD."""
        ...

    def token_text(self, token: int) -> str:
        """A token as the vocabulary spells it, control tokens too (what a chat template calls ``bos_token``)."""
        ...

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation."""
        ...

    def marker_texts(self) -> list[str]:
        """The spelling of every token that never comes out of plain text."""
        ...


def open_vocabulary(config: EngineConfig) -> Vocabulary:
    """The vocabulary alone, without weights; raises ``ModelFileError``."""
    if config.backend is BackendKind.FAKE:
        return FakeVocabulary()
    check_model_file(config.model_path)
    return LlamaVocabulary(LlamaModel.load_vocabulary(config.model_path))
