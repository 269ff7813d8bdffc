"""all-MiniLM-L6-v2 with int8 weights, which compute in float32: English, 23 MB."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from chat.rag.vectors.encoders.base import (
    DIMENSIONS,
    Calibration,
    Codes,
    EncoderInput,
    ModelMissing,
    Vectors,
    encode,
    start_session,
)

MAX_TOKENS = 256  # the model's training length; longer texts are truncated
VOCABULARY = Path(__file__).parent / "data" / "vocab.txt"
UNKNOWN, PADDING_ID = "[UNK]", 0


@dataclass(frozen=True)
class MiniLm:
    """The model; see ``base.Encoder``."""

    session: onnxruntime.InferenceSession
    tokenizer: Tokenizer
    # Its cosines are spread around 0, so that nothing is near to everything.
    calibration = Calibration(0.08, 0.68, np.zeros(DIMENSIONS, np.float32))

    @classmethod
    def load(cls, path: Path, *, expected: str | None) -> "MiniLm":
        """Load the file; ``expected`` is its SHA-256, None for an operator's own file. Raises ModelMissing."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelMissing("the embedding model cannot be read") from error
        if expected and hashlib.sha256(data).hexdigest() != expected:
            raise ModelMissing("the embedding model is damaged")
        return cls(start_session(data), load_tokenizer())

    def questions(self, texts: Sequence[str]) -> Vectors:
        return self.passages([EncoderInput(text) for text in texts])

    def passages(self, inputs: Sequence[EncoderInput], *, parallel: bool = True) -> Vectors:
        texts = self.tokenizer.encode_batch([item.text for item in inputs])
        contexts = self.tokenizer.encode_batch([item.context for item in inputs])
        codes = [_joined(before.ids, text.ids) for before, text in zip(contexts, texts, strict=True)]
        return encode(codes, self._hidden_states, parallel=parallel)

    def n_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(code.ids) for code in self.tokenizer.encode_batch(list(texts)))

    def _hidden_states(self, codes: list[list[int]]) -> Vectors:
        width = max(map(len, codes))
        input_ids = np.array([ids + [PADDING_ID] * (width - len(ids)) for ids in codes], np.int64)
        mask = np.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in codes], np.int64)
        inputs = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": np.zeros_like(input_ids)}
        hidden: Vectors = self.session.run(["last_hidden_state"], inputs)[0]
        return hidden


def _joined(context: list[int], text: list[int]) -> Codes:
    """Put the end of the context, as far as there is room, between [CLS] and the text."""
    room = MAX_TOKENS - len(text)
    before = context[1:-1][-room:] if room else []
    return Codes([text[0], *before, *text[1:]], [1, *[0] * len(before), *[1] * (len(text) - 1)])


def load_tokenizer() -> Tokenizer:
    """Return the uncased BERT tokenizer of the model."""
    words = {word: number for number, word in enumerate(VOCABULARY.read_text(encoding="utf-8").split("\n")) if word}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
