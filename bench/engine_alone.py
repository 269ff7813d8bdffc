"""R1: our loop beside a bare decode-and-sample loop on the same bindings and weights, in one process, in turn.

``python -m bench.engine_alone`` prints one JSON object; it is a process of its own so that no server runs beside it.
"""

import json
import random
import sys
import time
from pathlib import Path

import llama_cpp.llama_cpp as lib
from tqdm import tqdm

from bench.prompts import text_of
from inference.engine.config import EngineConfig
from inference.engine.frames import Ended, FromRunner, Step, Submit, encode
from inference.engine.llama_backend import LlamaBackend, context_params
from inference.engine.loop import Loop
from inference.engine.params import SamplingParams, SequenceParams

COUNTS = (1, 4, 8, 16)
PROMPT_TOKENS = 126
STEPS = 48  # that are timed, after all prompts are read


class OurLoop:
    """What a runner does, its frames encoded too; only the pipe is missing."""

    def __init__(self, backend: LlamaBackend, config: EngineConfig) -> None:
        self.backend, self.config = backend, config
        self.n_tokens = self.n_begun = self.n_ended = 0

    def _send(self, frame: FromRunner) -> None:
        encode(frame)
        self.n_ended += isinstance(frame, Ended)
        if isinstance(frame, Step):
            self.n_tokens += len(frame.emissions)
            self.n_begun += sum(each.index == 1 for each in frame.emissions)

    def tokens_per_sec(self, prompts: list[list[int]]) -> float:
        for slot in range(self.backend.n_slots):
            self.backend.remove(slot)
        self.n_begun = self.n_ended = 0
        loop = Loop(self.backend, self.config, self._send)
        for number, prompt in enumerate(prompts):
            params = SequenceParams(sampling=SamplingParams(seed=number), max_tokens=10 * STEPS, ignore_eos=True)
            loop.handle(Submit(sequence_id=str(number), prompt=prompt, params=params))
        while self.n_begun < len(prompts):
            loop.step()
        began, before = time.perf_counter(), self.n_tokens
        while self.n_tokens - before < STEPS * len(prompts):
            loop.step()
        secs = time.perf_counter() - began
        if self.n_ended:
            raise RuntimeError(f"{self.n_ended} answers ended within the time that was measured")
        return (self.n_tokens - before) / secs


class BareLoop:
    """One batch a step, one sampler chain a sequence, nothing else: the least that must be done."""

    def __init__(self, backend: LlamaBackend, config: EngineConfig, model: int) -> None:
        params = context_params(config, backend.n_cells, backend.n_slots, backend.batch_size)
        self.context = lib.llama_init_from_model(model, params)
        self.memory = lib.llama_get_memory(self.context)
        self.batch = lib.llama_batch_init(backend.batch_size, 0, 1)

    def _decode(self, parts: list[tuple[int, int, list[int]]]) -> None:
        """Each part is slot, first position and tokens; logits come of its last token."""
        at = 0
        for slot, start, tokens in parts:
            for offset, token in enumerate(tokens):
                self.batch.token[at], self.batch.pos[at] = token, start + offset
                self.batch.n_seq_id[at], self.batch.seq_id[at][0] = 1, slot
                self.batch.logits[at] = offset == len(tokens) - 1
                at += 1
        self.batch.n_tokens = at
        if lib.llama_decode(self.context, self.batch):
            raise RuntimeError(f"llama_decode failed on a batch of {at}")

    def tokens_per_sec(self, prompts: list[list[int]]) -> float:
        lib.llama_memory_clear(self.memory, False)
        chains = [chain_of(number) for number in range(len(prompts))]
        last = []
        for slot, prompt in enumerate(prompts):
            self._decode([(slot, 0, prompt)])
            last.append(lib.llama_sampler_sample(chains[slot], self.context, len(prompt) - 1))
        began = time.perf_counter()
        for step in range(STEPS):
            self._decode([(slot, PROMPT_TOKENS + step, [token]) for slot, token in enumerate(last)])
            last = [lib.llama_sampler_sample(chain, self.context, slot) for slot, chain in enumerate(chains)]
        secs = time.perf_counter() - began
        for chain in chains:
            lib.llama_sampler_free(chain)
        return STEPS * len(prompts) / secs


def chain_of(seed: int) -> int:
    """The settings that ``SamplingParams`` has when nobody chooses."""
    own = SamplingParams(seed=seed)
    chain: int = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for part in (
        lib.llama_sampler_init_top_k(own.top_k),
        lib.llama_sampler_init_top_p(own.top_p, 1),
        lib.llama_sampler_init_min_p(own.min_p, 1),
        lib.llama_sampler_init_temp(own.temperature),
        lib.llama_sampler_init_dist(own.seed),
    ):
        lib.llama_sampler_chain_add(chain, part)
    return chain


def measure(config: EngineConfig, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Tokens per second by number of sequences; who goes first changes with the round."""
    backend = LlamaBackend(config, n_slots=2 * config.parallel)
    players: dict[str, OurLoop | BareLoop] = {
        "ours": OurLoop(backend, config),
        "theirs": BareLoop(backend, config, backend.model_pointer),
    }
    found: dict[str, dict[str, list[float]]] = {str(n): {"ours": [], "theirs": []} for n in COUNTS}
    order = list(players)
    with tqdm(total=rounds * len(COUNTS) * 2, unit="run", desc="R1, engine alone", disable=None) as bar:
        for number in range(rounds):
            order.reverse()
            for n in COUNTS:
                seeds = random.Random(number * 100 + n).sample(range(10_000), n)
                texts = [text_of(2 * PROMPT_TOKENS, seed=seed) for seed in seeds]
                prompts = [backend.vocabulary.encode(text, special=False)[:PROMPT_TOKENS] for text in texts]
                for name in order:
                    found[str(n)][name].append(players[name].tokens_per_sec(prompts))
                    bar.update()
    return found


def main() -> None:
    model, threads, context, rounds = Path(sys.argv[1]), *(int(each) for each in sys.argv[2:5])
    config = EngineConfig(model_path=model, threads=threads, context_size=context, parallel=max(COUNTS), cache_ram_mb=0)
    print(json.dumps(measure(config, rounds)))


if __name__ == "__main__":
    main()
