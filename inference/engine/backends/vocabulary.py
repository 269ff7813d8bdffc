"""Interface of a vocabulary: text to tokens, tokens to text, metadata, without weights. Opens the configured one."""

from collections.abc import Callable, Mapping
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
        """All end-of-generation tokens."""
        ...

    @property
    def longest_token_bytes(self) -> int | None:
        """An upper bound on the bytes of text that one token stands for; None where the tokenizer drops text."""
        ...

    def encode(
        self,
        text: str,
        *,
        special: bool,
        limit: int | None = None,
        between_pieces: Callable[[], None] | None = None,
    ) -> list[int]:
        """Return token ids without BOS. With ``special=False`` never a control token.

        With ``limit`` a long text may be encoded only until there are more than ``limit`` ids: enough to refuse it.
        ``between_pieces`` is called between the pieces of a long text; what it raises ends the call.
        """
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token in the text; empty for a control token."""
        ...

    def pieces(self) -> list[bytes]:
        """Return ``piece`` of every token, which this call does not keep."""
        ...

    def text(self, ids: list[int]) -> str:
        """Return the text of tokens; invalid UTF-8 becomes U+FFFD."""
        ...

    def token_text(self, token: int) -> str:
        """Return the vocabulary's spelling of any token (as ``bos_token`` of a chat template)."""
        ...

    def is_eog(self, token: int) -> bool:
        """Return whether the token ends a generation."""
        ...

    def marker_texts(self) -> list[str]:
        """Return the spelling of every token that plain text never becomes."""
        ...


def open_vocabulary(config: EngineConfig) -> Vocabulary:
    """Open the vocabulary without weights; raises ``ModelFileError``."""
    if config.backend is BackendKind.FAKE:
        return FakeVocabulary()
    check_model_file(config.model_path)
    return LlamaVocabulary(LlamaModel.load_vocabulary(config.model_path))
