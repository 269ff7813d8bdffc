"""R1: the engine loop beside a bare decode-and-sample loop on the same bindings and weights, in one process and in turn
step by step, so that other load on the machine slows both down.

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
from inference.engine.backends.llama_backend import LlamaBackend, context_params
from inference.engine.config import EngineConfig
from inference.engine.core.engine_loop import EngineLoop
from inference.engine.params import SamplingParams, SequenceParams
from inference.engine.protocol.frames import Ended, FromRunner, Step, Submit, encode

COUNTS = (1, 4, 8, 16)
PROMPT_TOKENS = 126
STEPS = 48  # that are timed, after all prompts are read
N_PASSES = 3  # of a round, with other prompts each


class OurLoop:
    """The loop of a runner with the encoding of its frames, without the pipe."""

    def __init__(self, backend: LlamaBackend, config: EngineConfig) -> None:
        self.backend, self.config = backend, config
        self.loop = EngineLoop(backend, config, self._send)
        self.n_tokens = self.n_begun = self.n_ended = 0

    def _send(self, frame: FromRunner) -> None:
        encode(frame)
        self.n_ended += isinstance(frame, Ended)
        if isinstance(frame, Step):
            self.n_tokens += len(frame.emissions)
            self.n_begun += sum(emission.index == 1 for emission in frame.emissions)

    def begin(self, prompts: list[list[int]]) -> None:
        """Prefill the prompts, up to the first token of each."""
        for slot in range(self.backend.n_slots):
            self.backend.remove(slot)
        self.n_begun = self.n_ended = 0
        self.loop = EngineLoop(self.backend, self.config, self._send)
        for number, prompt in enumerate(prompts):
            params = SequenceParams(sampling=SamplingParams(seed=number), max_tokens=10 * STEPS, ignore_eos=True)
            self.loop.handle(Submit(sequence_id=str(number), prompt=prompt, params=params))
        while self.n_begun < len(prompts):
            self.loop.step()

    def step(self) -> int:
        """Run one batch and return the number of its tokens."""
        before = self.n_tokens
        self.loop.step()
        if self.n_ended:
            raise RuntimeError(f"{self.n_ended} answers ended within the time that was measured")
        return self.n_tokens - before


class BareLoop:
    """The minimum of work: one batch per step and one sampler chain per sequence."""

    def __init__(self, backend: LlamaBackend, config: EngineConfig, model: int) -> None:
        params = context_params(config, backend.n_cells, backend.n_slots, backend.batch_size)
        self.context = lib.llama_init_from_model(model, params)
        self.memory = lib.llama_get_memory(self.context)
        self.batch = lib.llama_batch_init(backend.batch_size, 0, 1)
        self.chains: list[int] = []
        self.last: list[int] = []  # token of each sequence, in no cell yet
        self.n_computed = 0  # tokens of each

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

    def begin(self, prompts: list[list[int]]) -> None:
        lib.llama_memory_clear(self.memory, False)
        for chain in self.chains:
            lib.llama_sampler_free(chain)
        self.chains = [chain_of(number) for number in range(len(prompts))]
        self.last = []
        for slot, prompt in enumerate(prompts):
            self._decode([(slot, 0, prompt)])
            self.last.append(lib.llama_sampler_sample(self.chains[slot], self.context, len(prompt) - 1))
        self.n_computed = len(prompts[0])

    def step(self) -> int:
        self._decode([(slot, self.n_computed, [token]) for slot, token in enumerate(self.last)])
        self.last = [lib.llama_sampler_sample(chain, self.context, slot) for slot, chain in enumerate(self.chains)]
        self.n_computed += 1
        return len(self.last)


def chain_of(seed: int) -> int:
    """Return a sampler chain with the default settings of ``SamplingParams``."""
    params = SamplingParams(seed=seed)
    chain: int = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for part in (
        lib.llama_sampler_init_top_k(params.top_k),
        lib.llama_sampler_init_top_p(params.top_p, 1),
        lib.llama_sampler_init_min_p(params.min_p, 1),
        lib.llama_sampler_init_temp(params.temperature),
        lib.llama_sampler_init_dist(params.seed),
    ):
        lib.llama_sampler_chain_add(chain, part)
    return chain


def play(players: dict[str, OurLoop | BareLoop], prompts: list[list[int]]) -> dict[str, float]:
    """Return the tokens per second of each loop over STEPS steps; the order alternates from step to step."""
    n_tokens, secs = dict.fromkeys(players, 0), dict.fromkeys(players, 0.0)
    for player in players.values():
        player.begin(prompts)
    order = list(players)
    for _ in range(STEPS):
        order.reverse()
        for name in order:
            began = time.perf_counter()
            n_tokens[name] += players[name].step()
            secs[name] += time.perf_counter() - began
    return {name: n_tokens[name] / secs[name] for name in players}


def measure(config: EngineConfig, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the tokens per second of each pass, by number of sequences."""
    backend = LlamaBackend(config, n_slots=2 * config.parallel)
    players: dict[str, OurLoop | BareLoop] = {
        "ours": OurLoop(backend, config),
        "theirs": BareLoop(backend, config, backend.model_pointer),
    }
    speeds: dict[str, dict[str, list[float]]] = {str(n): {name: [] for name in players} for n in COUNTS}
    n_passes = rounds * N_PASSES
    with tqdm(total=n_passes * len(COUNTS), unit="pass", desc="R1, engine alone", disable=None) as bar:
        for number in range(n_passes):
            for n in COUNTS:
                seeds = random.Random(number * 100 + n).sample(range(10_000), n)
                texts = [text_of(2 * PROMPT_TOKENS, seed=seed) for seed in seeds]
                prompts = [backend.vocabulary.encode(text, special=False)[:PROMPT_TOKENS] for text in texts]
                for name, speed in play(players, prompts).items():
                    speeds[str(n)][name].append(speed)
                bar.update()
    return speeds


def main() -> None:
    model, threads, context, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    config = EngineConfig(model_path=model, threads=threads, context_size=context, parallel=max(COUNTS), cache_ram_mb=0)
    print(json.dumps(measure(config, rounds)))


if __name__ == "__main__":
    main()
