"""Names of the models that are served, and the answers of /v1/models."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

OWNER = "gemma-service"
EMBEDDING_MODEL = "all-MiniLM-L6-v2"


class ModelMeta(Struct, frozen=True, kw_only=True):
    """Facts of the model file; names are llama-server's."""

    n_ctx: int
    n_ctx_train: int
    n_vocab: int


class ModelAnswer(Struct, frozen=True, kw_only=True):
    """A model. ``title`` is the name in the model file, ``meta`` only that of the chat model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = OWNER
    title: str
    meta: ModelMeta | UnsetType = UNSET


class ModelListAnswer(Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ModelAnswer]


def model_id(title: str) -> str:
    """Return the id of a model: its name without white space."""
    return "-".join(title.split())
