"""Bodies and answers of /v1/embeddings, /tokenize, /detokenize and /apply-template."""

from typing import Annotated, Literal, Self

from msgspec import Meta, Struct

from chat.schemas.decoding import FieldError
from chat.schemas.openai.chat_bodies import ModelName
from chat.schemas.openai.completion_bodies import TokenId
from chat.schemas.scalars import NonEmptyText, Text

MAX_INPUTS = 2048
MAX_DETOKENIZED = 1_000_000


class EmbeddingBody(Struct, frozen=True, kw_only=True):
    """Texts to embed. Token ids are of another model's vocabulary and are refused. ``dimensions`` keeps the first
    so many numbers of each vector, scaled to length 1."""

    input: NonEmptyText | Annotated[list[NonEmptyText], Meta(min_length=1, max_length=MAX_INPUTS)]
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=384)] | None = None

    def __post_init__(self) -> None:
        for index, text in enumerate(self.texts):
            if not text.strip():
                raise FieldError("input" if isinstance(self.input, str) else f"input[{index}]", "must not be empty")

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class EmbeddingItem(Struct, frozen=True, kw_only=True):
    """A vector of length 1; as base64 it is float32, little-endian."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    """Tokens that the embedding model read: at most 256 of each text."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage


class TokenizeBody(Struct, frozen=True, kw_only=True):
    """``parse_special``: names of control tokens stand for these tokens; ``add_special``: a BOS comes first."""

    content: Text
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class TokenPiece(Struct, frozen=True, kw_only=True):
    """A token and its text, or the bytes of part of a character."""

    id: int
    piece: str | list[int]

    @classmethod
    def of(cls, token: int, piece: bytes) -> Self:
        try:
            return cls(id=token, piece=piece.decode())
        except UnicodeDecodeError:
            return cls(id=token, piece=list(piece))


class TokenizeAnswer(Struct, frozen=True, kw_only=True):
    tokens: list[int | TokenPiece]


class DetokenizeBody(Struct, frozen=True, kw_only=True):
    tokens: Annotated[list[TokenId], Meta(max_length=MAX_DETOKENIZED)]


class DetokenizeAnswer(Struct, frozen=True, kw_only=True):
    content: str


class TemplateAnswer(Struct, frozen=True, kw_only=True):
    """The prompt of a dialogue with this service's system prompt, control tokens by their names."""

    prompt: str
