"""A model that needs no file: bytes for tokens, answers scripted by the prompt, the contract of the real one.

For tests that need speed or a certain answer, and for trying the service without a model. ``fake_script`` lists the
commands that a prompt may hold.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from inference.engine.text.plain_text import fingerprint

PAD, EOS, BOS, START_OF_TURN, END_OF_TURN = range(5)
CONTROL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
FIRST_BYTE = len(CONTROL)
N_TOKENS = FIRST_BYTE + 256
TRAINED_CONTEXT = 131_072

_CONTROL_IN_TEXT = re.compile("(" + "|".join(CONTROL) + ")")


class FakeVocabulary:
    """Byte ``b`` is token ``FIRST_BYTE + b``; the control tokens are Gemma's, so that Gemma's turn format is picked."""

    n_tokens: int = N_TOKENS
    bos: int | None = BOS
    eos: int | None = EOS
    model_name: str = "fake-it"
    trained_context: int = TRAINED_CONTEXT
    chat_template: str | None = None
    eog_tokens: frozenset[int] = frozenset((EOS, END_OF_TURN))
    longest_token_bytes: int | None = max(map(len, CONTROL))

    def __init__(self) -> None:
        self.metadata: Mapping[str, str] = MappingProxyType(
            {"general.architecture": "fake", "general.name": self.model_name, "tokenizer.ggml.model": "bytes"}
        )
        self.fingerprint: str = fingerprint(self.model_name, self.n_tokens, self.metadata)

    def encode(
        self,
        text: str,
        *,
        special: bool,
        limit: int | None = None,
        between_pieces: Callable[[], None] | None = None,
    ) -> list[int]:
        if between_pieces is not None:
            between_pieces()
        if limit is not None:
            text = text[: limit + 1]
        if not special:
            return [FIRST_BYTE + byte for byte in text.encode("utf-8", "replace")]
        ids: list[int] = []
        for part in _CONTROL_IN_TEXT.split(text):
            ids += [CONTROL.index(part)] if part in CONTROL else self.encode(part, special=False)
        return ids

    def piece(self, token: int) -> bytes:
        self._check(token)
        return bytes([token - FIRST_BYTE]) if token >= FIRST_BYTE else b""

    def pieces(self) -> list[bytes]:
        return [self.piece(token) for token in range(N_TOKENS)]

    def text(self, ids: list[int]) -> str:
        return b"".join(map(self.piece, ids)).decode("utf-8", "replace")

    def token_text(self, token: int) -> str:
        self._check(token)
        return CONTROL[token] if token < FIRST_BYTE else f"<0x{token - FIRST_BYTE:02X}>"

    def is_eog(self, token: int) -> bool:
        return token in self.eog_tokens

    def marker_texts(self) -> list[str]:
        return list(CONTROL)

    def _check(self, token: int) -> None:
        if not 0 <= token < self.n_tokens:
            raise ValueError(f"token {token} is not one of {self.n_tokens}")
