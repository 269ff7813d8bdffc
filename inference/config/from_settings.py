"""The engine's configuration from Django's settings; the engine itself reads neither settings nor environment."""

from django.conf import settings

from inference.engine.config import Device, EngineConfig


def requested_config() -> EngineConfig:
    """The settings as they are, before the model file limits them."""
    return EngineConfig(
        model_path=settings.GEMMA_MODEL_FILE,
        backend=settings.GEMMA_BACKEND,
        device=Device.CPU,
        context_size=settings.GEMMA_CONTEXT_SIZE,
        batch_size=settings.GEMMA_BATCH_SIZE,
        ubatch_size=settings.GEMMA_UBATCH_SIZE,
        parallel=settings.GEMMA_PARALLEL,
        threads=settings.GEMMA_THREADS,
        gpu_layers=0,
        main_gpu=settings.GEMMA_MAIN_GPU,
        tensor_split=settings.GEMMA_TENSOR_SPLIT,
        flash_attention=settings.GEMMA_FLASH_ATTENTION,
        kv_type_k=settings.GEMMA_KV_TYPE_K,
        kv_type_v=settings.GEMMA_KV_TYPE_V,
        mlock=settings.GEMMA_MLOCK,
        step_budget_ms=settings.GEMMA_STEP_BUDGET_MS,
        draft_max=settings.GEMMA_DRAFT_MAX,
        cache_ram_mb=settings.GEMMA_CACHE_RAM_MB,
        cache_dir=settings.GEMMA_DATA_DIR / "kv-cache",
        cache_disk_mb=settings.GEMMA_CACHE_DISK_MB,
    )


def capped_context(config: EngineConfig, trained_context: int) -> int:
    """Cells of the pool: the requested context, at most the trained one (0: unknown)."""
    return min(config.context_size, trained_context) if trained_context > 0 else config.context_size
