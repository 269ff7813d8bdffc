"""Log-probabilities as they are sent and stored. Computes none: their readers need no numpy."""

from collections.abc import Sequence

import msgspec

MAX_ALTERNATIVES = 20


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of the drawn token, and of the likeliest as (token, logprob), best first; ties by token id."""

    logprob: float
    top: list[tuple[int, float]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[TokenLogprobs | None])


def pack_logprobs(logprobs: Sequence[TokenLogprobs | None]) -> bytes:
    """Encode the log-probabilities of an answer's tokens for its row."""
    return _encoder.encode(logprobs)


def unpack_logprobs(data: bytes | memoryview) -> list[TokenLogprobs | None]:
    """Decode the bytes of ``pack_logprobs``; empty for none (PostgreSQL returns a memoryview)."""
    return _decoder.decode(data) if len(data) else []
