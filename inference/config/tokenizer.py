"""The vocabulary of the model in use, one per process, and the engine's configuration that needs it.

Loading takes half a second and 90 MB, so it happens at the first use. Knows no templates and no prompts.
"""

import copy
import logging
import threading
from functools import cached_property
from typing import NamedTuple

import msgspec
from django.conf import settings

from inference.config.from_settings import capped_context, requested_config
from inference.engine.backends.vocabulary import Vocabulary, open_vocabulary
from inference.engine.config import EngineConfig
from inference.engine.errors import EngineError
from inference.errors import ModelUnavailable
from inference.runtime import abort

log = logging.getLogger(__name__)

INSTRUCT_MARKS = ("it", "instruct", "chat")
# Shorter texts are encoded again faster than they are found.
REMEMBERED_CHARS = 1_000


class EncodedText(NamedTuple):
    """Token ids of a text that was encoded with ``limit``."""

    ids: list[int]
    limit: int | None

    def suffices(self, limit: int | None) -> bool:
        """Return whether the ids are those of the whole text, or enough for ``limit``."""
        if self.limit is None or len(self.ids) <= self.limit:
            return True
        return limit is not None and limit <= self.limit


class Tokenizer:
    """The model's vocabulary and the facts of its file, available without running it. Threads may share one."""

    def __init__(self, vocabulary: Vocabulary, config: EngineConfig, *, chat_template: str | None = None) -> None:
        """``chat_template`` replaces that of the file."""
        self.vocabulary = vocabulary
        self.config = msgspec.structs.replace(config, context_size=capped_context(config, vocabulary.trained_context))
        self.context_size = self.config.context_size
        self.trained_context = vocabulary.trained_context
        self.model_name = vocabulary.model_name
        self.chat_template = chat_template or vocabulary.chat_template
        self.fingerprint = vocabulary.fingerprint
        self.bos_text = vocabulary.token_text(vocabulary.bos) if vocabulary.bos is not None else ""
        self.eos_text = vocabulary.token_text(vocabulary.eos) if vocabulary.eos is not None else ""
        self._remembered: dict[tuple[str, bool], EncodedText] | None = None

    def for_request(self) -> "Tokenizer":
        """Return a tokenizer that encodes each long text once; it keeps them, so that it must not outlive a request."""
        tokenizer = copy.copy(self)
        tokenizer._remembered = {}
        return tokenizer

    def spelled(self, token: int) -> bytes:
        """Return the bytes of a token; a control token, which has none, is spelled by its name."""
        return self.vocabulary.piece(token) or self.vocabulary.token_text(token).encode()

    def encode(self, text: str, *, special: bool = False, limit: int | None = None) -> list[int]:
        """Return token ids without BOS; with ``special=False`` no text becomes a control token.

        With ``limit`` a long text may be encoded only until there are more ids: enough to refuse it. Raises
        WorkAborted between two pieces of a long text.
        """
        if self._remembered is None or len(text) < REMEMBERED_CHARS:
            return self.vocabulary.encode(text, special=special, limit=limit, between_pieces=abort.check)
        entry = self._remembered.get((text, special))
        if entry is None or not entry.suffices(limit):
            ids = self.vocabulary.encode(text, special=special, limit=limit, between_pieces=abort.check)
            entry = self._remembered[text, special] = EncodedText(ids, limit)
        return entry.ids

    def least_tokens(self, text: str) -> int:
        """Return a lower bound on the tokens of ``text`` without encoding it."""
        longest = self.vocabulary.longest_token_bytes
        return 0 if longest is None else -(-len(text.encode("utf-8", "replace")) // longest)

    def decode(self, token_ids: list[int]) -> str:
        return self.vocabulary.text(token_ids)

    @cached_property
    def is_instruct(self) -> bool:
        """Return whether the model was trained on turns, by the file's template, name or finetune."""
        if self.chat_template:
            return True
        metadata = self.vocabulary.metadata
        names = (self.model_name, metadata.get("general.finetune", ""), metadata.get("general.name", ""))
        words = {word for name in names for word in name.lower().replace("_", "-").replace(" ", "-").split("-")}
        return not words.isdisjoint(INSTRUCT_MARKS)


_lock = threading.Lock()
_tokenizer: Tokenizer | None = None


def get_tokenizer() -> Tokenizer:
    """This process's tokenizer, loaded at the first call. After ModelUnavailable the next call tries again."""
    global _tokenizer
    with _lock:
        if _tokenizer is None:
            config = requested_config()
            try:
                _tokenizer = Tokenizer(open_vocabulary(config), config, chat_template=settings.GEMMA_CHAT_TEMPLATE)
            except EngineError as error:
                raise ModelUnavailable(str(error)) from error
        return _tokenizer


def known_vocabulary() -> Vocabulary | None:
    """The vocabulary, or None when the model file cannot be used: for callers that can do without."""
    try:
        return get_tokenizer().vocabulary
    except ModelUnavailable as error:
        log.warning("vocabulary not available error=%s", error)
        return None


def count_tokens(text: str) -> int:
    """The number of tokens of ``text`` as content."""
    return len(get_tokenizer().encode(text))
