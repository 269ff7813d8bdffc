"""Construction of sequences from Submit frames, with the text state of tokens emitted by an earlier runner."""

import time
from itertools import count

from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.grammar.matcher import GrammarCompiler
from inference.engine.protocol.frames import Submit
from inference.engine.sampling.native_chain import Candidates
from inference.engine.sampling.prompt_lookup import PromptLookup
from inference.engine.sampling.sampler import Sampler
from inference.engine.sequences.cache_scope import CacheScope
from inference.engine.sequences.sequence import Sequence
from inference.engine.text.detokenizer import Detokenizer


class SequenceFactory:
    """Numbers sequences in the order of arrival; all share one array of sampling candidates."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._candidates = Candidates(vocabulary.n_tokens)
        self.grammars = GrammarCompiler(vocabulary)
        self._arrivals = count(1)

    def create(self, submit: Submit) -> Sequence:
        """Return a waiting sequence for a valid ``submit``, without KV state. Raises GrammarError."""
        params = submit.params
        now = time.monotonic()
        forbidden = self._vocabulary.eog_tokens if params.ignore_eos else ()
        return Sequence(
            id=submit.sequence_id,
            tokens=submit.prompt + submit.emitted,
            n_prompt=len(submit.prompt),
            priority=submit.priority,
            arrival=next(self._arrivals),
            max_tokens=params.max_tokens,
            cache_prompt=params.cache_prompt,
            ephemeral=params.ephemeral,
            tags=frozenset(params.cache_tags),
            scope=CacheScope(params.cache_caller, params.n_shared),
            sampler=Sampler(params.sampling, self._candidates, forbidden),
            text=Detokenizer.of(params),
            lookup=PromptLookup(self._vocabulary.eog_tokens),
            matcher=self.grammars.matcher(params.grammar) if params.grammar else None,
            n_logprobs=params.n_logprobs,
            arrived_at=now,
            checkpoint_folder=submit.checkpoint_folder,
            max_checkpoint_bytes=submit.checkpoint_bytes,
            ends_at=None if submit.timeout_secs is None else now + submit.timeout_secs,
        )

    def replay(self, sequence: Sequence, emitted: list[int]) -> str | None:
        """Push emitted tokens through detokenizer and grammar; returns the reason when the sequence is over already.

        Raises GrammarError.
        """
        for token in emitted:
            if matcher := sequence.binding_matcher:
                matcher.consume(token)
            sequence.text.push_token(token, self._vocabulary)
        sequence.text.take_thought()
        if sequence.text.stopped or (sequence.matcher and sequence.matcher.is_complete):
            return "stop"
        return "length" if sequence.n_generated >= sequence.max_tokens else None
