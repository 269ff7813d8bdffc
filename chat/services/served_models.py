"""The names that a request may call the served models by."""

from contextlib import suppress
from dataclasses import dataclass

from django.conf import settings

from chat.error_translation import translated
from chat.errors import NotFound, quoted
from chat.schemas.openai.models import EMBEDDING_MODEL, ModelAnswer, ModelMeta, model_id
from inference.config.tokenizer import get_tokenizer

ANY_NAME = "*"


@dataclass(frozen=True)
class ServedModel:
    """A model with the names that it answers to, besides the aliases."""

    answer: ModelAnswer
    names: frozenset[str]


def chat_model() -> ServedModel:
    """Return the loaded model. Raises Unavailable."""
    with translated():
        tokenizer = get_tokenizer()
    created = 0
    with suppress(OSError):  # the fake model has no file
        created = int(settings.GEMMA_MODEL_FILE.stat().st_mtime)
    answer = ModelAnswer(
        id=model_id(tokenizer.model_name),
        created=created,
        title=tokenizer.model_name,
        meta=ModelMeta(
            n_ctx=tokenizer.context_size,
            n_ctx_train=tokenizer.trained_context,
            n_vocab=tokenizer.vocabulary.n_tokens,
        ),
    )
    names = (answer.id, answer.title, settings.GEMMA_MODEL_FILE.stem, settings.GEMMA_MODEL_FILE.name)
    return ServedModel(answer, frozenset(name.casefold() for name in names))


def embedding_model() -> ServedModel:
    answer = ModelAnswer(id=EMBEDDING_MODEL, title=EMBEDDING_MODEL)
    return ServedModel(answer, frozenset({EMBEDDING_MODEL.casefold()}))


def require_model(name: str | None, model: ServedModel) -> str:
    """Return the id of ``model`` if ``name`` means it; None and "" mean any. Raises NotFound (``model_not_found``)."""
    aliases = {alias.casefold() for alias in settings.MODEL_ALIASES}
    if name and ANY_NAME not in aliases and name.casefold() not in model.names | aliases:
        raise NotFound(f"the model {quoted(name)} does not exist here", code="model_not_found", field="model")
    return model.answer.id


def find_model(name: str) -> ModelAnswer:
    """Return the model of this name. Raises NotFound (``model_not_found``)."""
    embedding = embedding_model()
    if name.casefold() in embedding.names:
        return embedding.answer
    served = chat_model()
    require_model(name, served)
    return served.answer
