"""System checks: rules over several settings, and over settings and the machine. gemma.E... stop, gemma.W... warn.

Every command runs them. What one variable may hold is checked while it is parsed (environment.py).
"""

import difflib
import ipaddress
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution

from inference.config.from_settings import requested_config
from inference.config.memory_budget import kv_bytes
from inference.engine.backends.gguf_header import check_model_file
from inference.engine.config import MEBIBYTE, BackendKind, FlashAttention, KvType
from inference.engine.errors import ModelFileError

Rule = Callable[[], Iterator[CheckMessage]]
PREFIX = "GEMMA_"
MIN_SECRET_BYTES = 32
# Claims of live workers would be taken over if a heartbeat or two came late.
HEARTBEATS_PER_CLAIM = 3
# There when a card is, also in containers that were given one.
NVIDIA_DEVICE = Path("/dev/nvidiactl")
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


@register()
def check_settings(**kwargs: object) -> list[CheckMessage]:
    return [message for check in RULES for message in check()]


@rule
def model_file() -> Iterator[CheckMessage]:
    """E001, W002. The default model may be missing: it is put together when the service starts."""
    path: Path = settings.GEMMA_MODEL_FILE
    if settings.GEMMA_BACKEND is BackendKind.FAKE or (settings.GEMMA_MODEL_PATH is None and not path.exists()):
        return
    try:
        trained = check_model_file(path).trained_context
    except ModelFileError as error:
        hint = "Set GEMMA_MODEL_PATH to a GGUF file, or unset it to use the default model."
        if settings.GEMMA_MODEL_PATH is None:
            hint = f"Remove {path}; it is put together again when the service starts."
        yield Error(str(error), hint=hint, id="gemma.E001")
        return
    # The default of the variable is meant for larger models; only a size that somebody chose is worth a warning.
    if 0 < trained < settings.GEMMA_CONTEXT_SIZE and settings.ENVIRONMENT.is_set("GEMMA_CONTEXT_SIZE"):
        yield Caution(
            f"GEMMA_CONTEXT_SIZE={settings.GEMMA_CONTEXT_SIZE} is more than the {trained} tokens that "
            f"{path.name} was trained for; {trained} are used.",
            hint=f"Set GEMMA_CONTEXT_SIZE={trained} or less.",
            id="gemma.W002",
        )


@rule
def cache_types() -> Iterator[CheckMessage]:
    """E003: llama.cpp cannot quantise the V cache without flash attention."""
    if settings.GEMMA_KV_TYPE_V is not KvType.F16 and settings.GEMMA_FLASH_ATTENTION is FlashAttention.OFF:
        yield Error(
            f"GEMMA_KV_TYPE_V={settings.GEMMA_KV_TYPE_V} needs flash attention, but GEMMA_FLASH_ATTENTION=off.",
            hint="Set GEMMA_FLASH_ATTENTION=auto or GEMMA_KV_TYPE_V=f16.",
            id="gemma.E003",
        )


@rule
def batch_fits_the_context() -> Iterator[CheckMessage]:
    """W004"""
    if settings.GEMMA_BATCH_SIZE > settings.GEMMA_CONTEXT_SIZE:
        yield Caution(
            f"GEMMA_BATCH_SIZE={settings.GEMMA_BATCH_SIZE} is more than GEMMA_CONTEXT_SIZE="
            f"{settings.GEMMA_CONTEXT_SIZE}; the rest of the batch is never used.",
            hint="Set GEMMA_BATCH_SIZE to the context size or less.",
            id="gemma.W004",
        )


@rule
def a_step_fits_the_batch() -> Iterator[CheckMessage]:
    """E030"""
    if settings.GEMMA_UBATCH_SIZE > settings.GEMMA_BATCH_SIZE:
        yield Error(
            f"GEMMA_UBATCH_SIZE={settings.GEMMA_UBATCH_SIZE} is more than GEMMA_BATCH_SIZE="
            f"{settings.GEMMA_BATCH_SIZE}, of which it is a part.",
            hint="Set GEMMA_UBATCH_SIZE to the batch size or less, or unset it.",
            id="gemma.E030",
        )


@rule
def cards_of_the_split() -> Iterator[CheckMessage]:
    """E031: what is not split would go to a card that gets nothing."""
    split = settings.GEMMA_TENSOR_SPLIT
    if split and not any(split[settings.GEMMA_MAIN_GPU : settings.GEMMA_MAIN_GPU + 1]):
        yield Error(
            f"GEMMA_MAIN_GPU={settings.GEMMA_MAIN_GPU} has no share in GEMMA_TENSOR_SPLIT="
            f"{','.join(f'{share:g}' for share in split)}.",
            hint="Name a card, counted from 0, that has a share.",
            id="gemma.E031",
        )


@rule
def threads_exist() -> Iterator[CheckMessage]:
    """W005: more threads than cores wait for each other at every layer."""
    cores = len(os.sched_getaffinity(0))
    if cores < settings.GEMMA_THREADS:
        yield Caution(
            f"GEMMA_THREADS={settings.GEMMA_THREADS} is more than the {cores} cores this process may use.",
            hint=f"Set GEMMA_THREADS={cores} or less; more is much slower, not faster.",
            id="gemma.W005",
        )


@rule
def anonymous_callers() -> Iterator[CheckMessage]:
    """E006, W007: who may chat without credentials when others than this machine can reach the port."""
    if settings.JWT_ONLY or is_loopback(settings.GEMMA_HOST):
        return
    for network in settings.ANONYMOUS_NETWORKS:
        if network.is_loopback:
            continue
        hint = "Set JWT_ONLY=true, or take the network out of ANONYMOUS_NETWORKS."
        what = f"GEMMA_HOST={settings.GEMMA_HOST}: everybody in {network} (ANONYMOUS_NETWORKS) needs no credentials"
        if network.is_private:
            yield Caution(f"{what}.", hint=hint, id="gemma.W007")
        else:
            yield Error(f"{what}, and that network is public.", hint=hint, id="gemma.E006")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@rule
def secrets_are_long_enough() -> Iterator[CheckMessage]:
    """E008. JWT_SIGNING_KEY is refused while it is parsed."""
    for name in ("SECRET_KEY", "JWT_SECRET", "JWT_SECRET_PRIMARY", "JWT_SECRET_PREVIOUS"):
        secret: str | None = getattr(settings, name)
        if secret is not None and len(secret.encode()) < MIN_SECRET_BYTES:
            yield Error(
                f"{name} has {len(secret.encode())} bytes; it can be guessed.",
                hint=f"Use at least {MIN_SECRET_BYTES} random bytes.",
                id="gemma.E008",
            )


@rule
def the_previous_key_is_not_alone() -> Iterator[CheckMessage]:
    """W037: the key that is about to go signs for this service until there is a new one."""
    if settings.JWT_SECRET_PREVIOUS and not (settings.JWT_SECRET_PRIMARY or settings.JWT_SECRET):
        yield Caution(
            "JWT_SECRET_PREVIOUS is set without JWT_SECRET_PRIMARY: tokens are signed with the previous key.",
            hint="Set JWT_SECRET_PRIMARY to the new key.",
            id="gemma.W037",
        )


@rule
def one_source_per_setting() -> Iterator[CheckMessage]:
    """E009: a text and a file for the same thing, of which one would silently lose."""
    environment = settings.ENVIRONMENT
    for name in sorted(name for name in environment.names if f"{name}_FILE" in environment.names):
        if environment.is_set(name) and environment.is_set(f"{name}_FILE"):
            yield Error(f"{name} and {name}_FILE are both set.", hint="Unset one of them.", id="gemma.E009")


@rule
def a_login_outlives_its_access_tokens() -> Iterator[CheckMessage]:
    """E036: an access token is valid as long as a refresh token of its login is unused."""
    if settings.JWT_ACCESS_SECS > settings.JWT_REFRESH_SECS:
        yield Error(
            f"JWT_ACCESS_SECS={settings.JWT_ACCESS_SECS} is more than JWT_REFRESH_SECS={settings.JWT_REFRESH_SECS}.",
            hint="Set JWT_REFRESH_SECS to JWT_ACCESS_SECS or more.",
            id="gemma.E036",
        )


@rule
def heartbeats_keep_claims() -> Iterator[CheckMessage]:
    """E010"""
    if settings.HEARTBEAT_SECS * HEARTBEATS_PER_CLAIM > settings.CLAIM_TTL_SECS:
        yield Error(
            f"HEARTBEAT_SECS={settings.HEARTBEAT_SECS:g} is too long for CLAIM_TTL_SECS={settings.CLAIM_TTL_SECS:g}: "
            "work of a live worker would be taken over.",
            hint=f"Set CLAIM_TTL_SECS to at least {HEARTBEATS_PER_CLAIM} times HEARTBEAT_SECS.",
            id="gemma.E010",
        )


@rule
def the_card_is_left_before_it_is_given_up() -> Iterator[CheckMessage]:
    """E032: the longest hold before the shortest could never be kept."""
    if settings.GPU_MIN_HOLD_SECS > settings.GPU_MAX_HOLD_SECS:
        yield Error(
            f"GPU_MIN_HOLD_SECS={settings.GPU_MIN_HOLD_SECS:g} is more than "
            f"GPU_MAX_HOLD_SECS={settings.GPU_MAX_HOLD_SECS:g}.",
            hint="Set GPU_MIN_HOLD_SECS to GPU_MAX_HOLD_SECS or less.",
            id="gemma.E032",
        )


@rule
def residents_may_pause_in_time() -> Iterator[CheckMessage]:
    """E033: a word of leaving may not take longer than leaving."""
    if settings.GPU_PAUSE_TIMEOUT > settings.GPU_FREED_TIMEOUT:
        yield Error(
            f"GPU_PAUSE_TIMEOUT={settings.GPU_PAUSE_TIMEOUT:g} is more than "
            f"GPU_FREED_TIMEOUT={settings.GPU_FREED_TIMEOUT:g}, of which it is a part.",
            hint="Set GPU_FREED_TIMEOUT to GPU_PAUSE_TIMEOUT or more.",
            id="gemma.E033",
        )


@rule
def states_have_a_folder() -> Iterator[CheckMessage]:
    """W034: without the folder no answer can move to the GPU."""
    folder: Path = settings.GEMMA_SHM_DIR
    if _may_use_a_card() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        yield Caution(
            f"GEMMA_SHM_DIR={folder} is not a folder that can be written to: the GPU is not used.",
            hint="Set GEMMA_SHM_DIR to a tmpfs, or GEMMA_GPU=off.",
            id="gemma.W034",
        )


@rule
def states_fit_their_folder() -> Iterator[CheckMessage]:
    """W035: KV states that do not fit are computed again on the other device."""
    folder: Path = settings.GEMMA_SHM_DIR
    path: Path = settings.GEMMA_MODEL_FILE
    if not _may_use_a_card() or not folder.is_dir() or settings.GEMMA_BACKEND is BackendKind.FAKE or not path.exists():
        return
    try:
        needed = kv_bytes(requested_config()) or 0
    except ModelFileError:
        return  # E001 says so
    size = shutil.disk_usage(folder).total
    if size < needed:
        yield Caution(
            f"GEMMA_SHM_DIR={folder} has {size // MEBIBYTE} MB, but the caches of GEMMA_CONTEXT_SIZE="
            f"{settings.GEMMA_CONTEXT_SIZE} and GEMMA_PARALLEL={settings.GEMMA_PARALLEL} take up to "
            f"{needed // MEBIBYTE} MB: KV states that do not fit are computed again after a move.",
            hint="Make that tmpfs larger (containers: shm_size), or choose a smaller context.",
            id="gemma.W035",
        )


def _may_use_a_card() -> bool:
    return settings.GEMMA_GPU == "simulated" or (settings.GEMMA_GPU == "auto" and NVIDIA_DEVICE.exists())


@rule
def callers_fit_the_queue() -> Iterator[CheckMessage]:
    """W011"""
    if settings.QUEUE_MAX_PER_CALLER > settings.QUEUE_MAX:
        yield Caution(
            f"QUEUE_MAX_PER_CALLER={settings.QUEUE_MAX_PER_CALLER} is more than QUEUE_MAX={settings.QUEUE_MAX}: "
            "one caller can fill the whole queue.",
            hint="Set QUEUE_MAX_PER_CALLER below QUEUE_MAX.",
            id="gemma.W011",
        )


@rule
def hosts_are_named() -> Iterator[CheckMessage]:
    """W012: any name in the Host header lets a foreign web page reach a local service by DNS rebinding."""
    if "*" in settings.ALLOWED_HOSTS:
        yield Caution(
            "ALLOWED_HOSTS=* takes requests under any name.",
            hint="List the names under which the service is reached.",
            id="gemma.W012",
        )


@rule
def debugging_is_off() -> Iterator[CheckMessage]:
    """W015: pages of errors show code and settings, and every query is kept in memory."""
    if settings.DEBUG:
        yield Caution(
            "DEBUG=true: pages of errors show source code, variables and settings to whoever causes an error.",
            hint="Unset DEBUG on a machine that others can reach.",
            id="gemma.W015",
        )


@rule
def data_directory_is_writable() -> Iterator[CheckMessage]:
    """E013"""
    directory: Path = settings.GEMMA_DATA_DIR
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Error(
            f"GEMMA_DATA_DIR={directory} cannot be written.",
            hint="Set GEMMA_DATA_DIR to a directory of the user who runs the service.",
            id="gemma.E013",
        )


@rule
def variables_are_known() -> Iterator[CheckMessage]:
    """W014: a misspelt variable is otherwise silently without effect."""
    environment = settings.ENVIRONMENT
    for name in environment.unknown(PREFIX):
        close = difflib.get_close_matches(name, environment.names, n=1)
        hint = f"Did you mean {close[0]}?" if close else "The README lists the variables."
        yield Caution(f"{name} is not a variable of this service and has no effect.", hint=hint, id="gemma.W014")
