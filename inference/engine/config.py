"""Configuration of a runner, built once by the owner of the process.

The engine itself reads no environment and no settings.
"""

from enum import StrEnum
from pathlib import Path

import msgspec

MEBIBYTE = 1 << 20
N_IDLE_SLOTS = 2  # for ended sequences on a CPU; they may use free slots of running ones, too
MAX_DEVICES = 16  # of llama.cpp, in any build


class BackendKind(StrEnum):
    """Implementation that computes logits."""

    LLAMA = "llama"  # llama.cpp on a GGUF file
    FAKE = "fake"  # scripted bytes under the same contract, for fast tests


class Device(StrEnum):
    CPU = "cpu"
    GPU = "gpu"
    SIMULATED = "simulated"  # the CPU in place of a GPU, for machines without one


class FlashAttention(StrEnum):
    AUTO = "auto"  # llama.cpp decides
    ON = "on"
    OFF = "off"  # bit-exact when sequences are copied, restored or moved


class KvType(StrEnum):
    F16 = "f16"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Model, memory and speed settings of one runner.

    ``context_size`` is the pool of cells that all sequences of the runner share; one sequence may use all of it.
    """

    model_path: Path
    backend: BackendKind = BackendKind.LLAMA
    device: Device = Device.CPU
    context_size: int = 65_536
    batch_size: int = 512
    ubatch_size: int | None = None  # most of a batch in one pass over the weights; None: all of it
    parallel: int = 4
    threads: int = 2
    gpu_layers: int = 0
    main_gpu: int = 0  # GPU of the model, or of the parts that cannot be split
    tensor_split: tuple[float, ...] = ()  # shares of the GPUs; empty: all on the main GPU
    flash_attention: FlashAttention = FlashAttention.AUTO
    kv_type_k: KvType = KvType.F16
    kv_type_v: KvType = KvType.F16
    mlock: bool = False
    step_budget_ms: float = 200.0
    draft_max: int = 0  # draft tokens of one answer in one batch
    cache_ram_mb: int = 512
    cache_dir: Path | None = None  # folder of the disk tier of the prefix cache; None: no disk tier
    cache_disk_mb: int = 2048
    progress_secs: float = 1.0  # between two reports of progress during long work
    checkpoint_secs: float = 2.0  # of prefill between two checkpoints of a prompt in progress, at least
    load_delay_ms: float = 0.0  # added to the loading time on a simulated GPU

    def __post_init__(self) -> None:
        for name in ("context_size", "batch_size", "parallel", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("cache_ram_mb", "cache_disk_mb", "draft_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.ubatch_size is not None and not 1 <= self.ubatch_size <= self.batch_size:
            raise ValueError(f"ubatch_size must be from 1 to batch_size={self.batch_size}, got {self.ubatch_size}")
        if not 0 <= self.main_gpu < (len(self.tensor_split) or MAX_DEVICES):
            raise ValueError(f"main_gpu={self.main_gpu} is not one of the GPUs of tensor_split={self.tensor_split}")
        if len(self.tensor_split) > MAX_DEVICES or any(share < 0 for share in self.tensor_split):
            raise ValueError(f"tensor_split={self.tensor_split} must be at most {MAX_DEVICES} shares of at least 0")
        if self.kv_type_v is not KvType.F16 and self.flash_attention is FlashAttention.OFF:
            raise ValueError(f"kv_type_v={self.kv_type_v} needs flash attention, which is off")

    @property
    def layers_on_gpu(self) -> int:
        """``gpu_layers`` on a GPU, 0 in a runner on the CPU."""
        return 0 if self.device is Device.CPU else self.gpu_layers

    @property
    def n_slots(self) -> int:
        """Sequences that may hold cells at once: running ones, and ended ones kept for their next turn.

        Sliding-window layers have a window of cells for each, on a CPU attention passes over all of them, and states of
        ended sequences are saved in RAM anyway: with 4 running and 8, 6, 5 slots a prompt token cost 4.44, 3.94,
        3.72 ms (270M, 2 cores).
        """
        n_idle = self.parallel if self.device is Device.GPU or not self.cache_ram_mb else N_IDLE_SLOTS
        return self.parallel + n_idle

    @property
    def n_logit_rows(self) -> int:
        """Upper bound for rows of logits in one batch.

        llama.cpp asserts one for every sequence; as many again as may run are for draft tokens.
        """
        return max(self.n_slots, 2 * self.parallel, 1 + self.draft_max)

    @property
    def max_idle_cells(self) -> int | None:
        """Cells that ended sequences hold beside the youngest; None: all until others need them.

        Attention passes over every cell in use, masked or not. On a CPU 900 more add 0.04 ms to a prompt token,
        1.81 without any, and a state of 900 is saved and loaded in 6 ms (270M, 2 cores). Not measured on a GPU.
        """
        return None if self.device is Device.GPU else 1024

    @property
    def maps_states(self) -> bool:
        """Map states from another runner instead of reading them; a runner on a GPU ends soon and frees the pages.

        Reading delayed the first answers by 1.6 ms per MB (measured in a virtual machine).
        """
        return self.device is not Device.CPU

    @property
    def mixes_prefill_and_decode(self) -> bool:
        """Put prompts and answers into one batch.

        Expensive on a CPU: rows of one tile attend to the union of the positions that each may see. Measured (270M, 2
        cores): 8 answers and 256 prompt tokens took 711 ms in one batch, 63 + 491 ms in two. A GPU computes all of it
        anyway.
        """
        return self.device is Device.GPU
