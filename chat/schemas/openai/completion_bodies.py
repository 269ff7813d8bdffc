"""Bodies of /v1/completions: raw prompts as texts or token ids."""

from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta

from chat.errors import InvalidRequest
from chat.schemas.chat_bodies import MAX_TOKEN_ID
from chat.schemas.decoding import FieldError, decode, invalid_field
from chat.schemas.openai.chat_bodies import MAX_TOP_LOGPROBS, CompletionCall, SamplingBody, openai_options
from chat.schemas.openai.messages import unsupported
from chat.schemas.requests import CompletionRequest
from chat.schemas.scalars import Text

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_COMPLETIONS = 64

TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
Prompt = str | tuple[int, ...]


class OpenAICompletionBody(SamplingBody, frozen=True, kw_only=True):
    """A completion without a template. ``prompt`` is one text, one list of token ids, or a list of either; names of
    control tokens in a text stand for them unless ``special`` is false. Without ``max_tokens`` there are 16. Nothing is
    stored."""

    prompt: Text | Annotated[list[Text | TokenId | list[TokenId]], Meta(min_length=1)]
    echo: bool | None = None
    special: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    best_of: int | None = None
    # Refused below unless it asks for nothing.
    suffix: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.echo and self.logprobs is not None:
            raise FieldError("logprobs", "cannot be combined with echo")

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts one by one. Raises InvalidRequest."""
        value: str | list[Any] = self.prompt
        if isinstance(value, str):
            return [value]
        kinds = {type(item) for item in value}
        if kinds == {int}:
            return [tuple(value)]
        if int in kinds:
            raise InvalidRequest("prompt must not mix texts and token ids in one list", field="prompt")
        return [item if isinstance(item, str) else tuple(item) for item in value]


def openai_completion_request(data: object) -> tuple[CompletionCall, CompletionRequest, bool]:
    """Return the typed request, and whether the prompts are repeated before the answers. Raises InvalidRequest."""
    body = decode(OpenAICompletionBody, data)
    if body.suffix not in (None, ""):
        raise unsupported("suffix", "suffix is not supported: the model was not trained to fill in the middle")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise unsupported("best_of", "best_of is not supported: it must equal n")
    first, *further = body.prompts
    if (1 + len(further)) * (body.n or 1) > MAX_COMPLETIONS:
        raise invalid_field("prompt", f"must not ask for more than {MAX_COMPLETIONS} completions, n each")
    options = {"max_tokens": DEFAULT_MAX_TOKENS} | openai_options(body)
    request = CompletionRequest(prompt=first, further_prompts=tuple(further), **options)
    if body.logprobs is not None:
        request = replace(request, n_logprobs=max(1, body.logprobs))
    if body.special is not None:
        request = replace(request, special=body.special)
    return CompletionCall.of(body), request, bool(body.echo)
