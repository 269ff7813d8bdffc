"""Every system check: its situation yields its id and names the fault; the defaults yield nothing."""

import ipaddress
import os
import re
import shutil
import struct
from pathlib import Path

import pytest
from django.core.checks import CheckMessage
from pytest_django.fixtures import Settings

from gemma_project.checks import RULES, check_settings
from gemma_project.environment import Environment
from gemma_project.management.commands.serve import context_text
from inference.engine.config import BackendKind, FlashAttention, KvType
from tests.live_stack import PROJECT

HERE = [ipaddress.ip_network("127.0.0.0/8")]


def found(check_id: str) -> CheckMessage:
    """The one message with the id; fails when there is none."""
    messages = check_settings()
    matching = [message for message in messages if message.id == check_id]
    assert len(matching) == 1, messages
    assert matching[0].hint
    return matching[0]


def tiny_model(path: Path, *, trained_context: int) -> Path:
    """A GGUF header with one small tensor and the trained context."""
    key = b"gemma3.context_length"
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    header += struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, trained_context)
    header += struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 32, 0, 0)
    header += b"\0" * (-len(header) % 32)
    path.write_bytes(header + b"\0" * 128)
    return path


def test_the_tests_own_settings_yield_nothing() -> None:
    assert check_settings() == []


def test_a_missing_model_file_is_an_error(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_BACKEND = BackendKind.LLAMA
    settings.GEMMA_MODEL_PATH = settings.GEMMA_MODEL_FILE = tmp_path / "gone.gguf"
    message = found("gemma.E001")
    assert message.is_serious()
    assert str(tmp_path / "gone.gguf") in message.msg


def test_a_default_model_that_is_not_there_yet_is_none(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_BACKEND = BackendKind.LLAMA
    settings.GEMMA_MODEL_PATH, settings.GEMMA_MODEL_FILE = None, tmp_path / "default.gguf"
    assert check_settings() == []


def test_the_card_is_not_held_longer_at_least_than_at_most(settings: Settings) -> None:
    settings.GPU_MIN_HOLD_SECS, settings.GPU_MAX_HOLD_SECS = 5.0, 4.0
    assert "GPU_MIN_HOLD_SECS=5" in found("gemma.E032").msg


def test_a_word_of_leaving_does_not_take_longer_than_leaving(settings: Settings) -> None:
    settings.GPU_PAUSE_TIMEOUT, settings.GPU_FREED_TIMEOUT = 70.0, 60.0
    assert "GPU_PAUSE_TIMEOUT=70" in found("gemma.E033").msg


def test_a_card_without_a_folder_for_states(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_SHM_DIR = tmp_path / "missing"
    assert check_settings() == [], "there is no card to move to"
    settings.GEMMA_GPU = "simulated"
    assert str(settings.GEMMA_SHM_DIR) in found("gemma.W034").msg


def test_states_that_do_not_fit_their_folder(
    settings: Settings, tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GEMMA_GPU, settings.GEMMA_SHM_DIR = "simulated", tmp_path
    settings.GEMMA_BACKEND, settings.GEMMA_CONTEXT_SIZE = BackendKind.LLAMA, 8192
    settings.GEMMA_MODEL_PATH = settings.GEMMA_MODEL_FILE = model_path
    usage = shutil.disk_usage(tmp_path)
    for size, is_told in ((64 << 20, True), (4 << 30, False)):
        monkeypatch.setattr(
            "gemma_project.checks.shutil.disk_usage", lambda path, size=size: usage._replace(total=size)
        )
        assert [message.id for message in check_settings()] == ["gemma.W035"] * is_told
    monkeypatch.setattr("gemma_project.checks.shutil.disk_usage", lambda path: usage._replace(total=64 << 20))
    assert "has 64 MB, but the caches of GEMMA_CONTEXT_SIZE=8192" in found("gemma.W035").msg


def test_a_broken_default_model_says_how_to_get_a_new_one(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_BACKEND = BackendKind.LLAMA
    settings.GEMMA_MODEL_PATH, settings.GEMMA_MODEL_FILE = None, tmp_path / "default.gguf"
    settings.GEMMA_MODEL_FILE.write_bytes(b"nonsense")
    assert "Remove" in (found("gemma.E001").hint or "")


def test_a_context_beyond_the_trained_one_is_told(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_BACKEND = BackendKind.LLAMA
    settings.GEMMA_MODEL_PATH = settings.GEMMA_MODEL_FILE = tiny_model(tmp_path / "m.gguf", trained_context=8192)
    settings.GEMMA_CONTEXT_SIZE = 10_000
    settings.ENVIRONMENT = Environment({"GEMMA_CONTEXT_SIZE": "10000"})
    message = found("gemma.W002")
    assert not message.is_serious()
    assert "10000" in message.msg
    assert "8192 are used" in message.msg


def test_the_start_says_which_context_there_is(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_BACKEND = BackendKind.LLAMA
    settings.GEMMA_MODEL_FILE = tiny_model(tmp_path / "m.gguf", trained_context=8192)
    settings.GEMMA_CONTEXT_SIZE = 65_536
    assert context_text() == "8192 tokens, not GEMMA_CONTEXT_SIZE=65536: the model was trained for no more"
    settings.GEMMA_CONTEXT_SIZE = 4096
    assert context_text() == "4096 tokens"


def test_the_default_context_is_no_warning(settings: Settings, tmp_path: Path) -> None:
    settings.GEMMA_BACKEND = BackendKind.LLAMA
    settings.GEMMA_MODEL_PATH = settings.GEMMA_MODEL_FILE = tiny_model(tmp_path / "m.gguf", trained_context=8192)
    settings.ENVIRONMENT = Environment({})
    assert check_settings() == []


def test_debugging_is_a_warning(settings: Settings) -> None:
    settings.DEBUG = True
    assert "DEBUG=true" in found("gemma.W015").msg


def test_a_quantised_v_cache_needs_flash_attention(settings: Settings) -> None:
    settings.GEMMA_KV_TYPE_V, settings.GEMMA_FLASH_ATTENTION = KvType.Q8_0, FlashAttention.OFF
    assert "GEMMA_KV_TYPE_V=q8_0" in found("gemma.E003").msg
    settings.GEMMA_FLASH_ATTENTION = FlashAttention.AUTO
    assert check_settings() == []


def test_a_pass_larger_than_its_batch_is_an_error(settings: Settings) -> None:
    settings.GEMMA_UBATCH_SIZE, settings.GEMMA_BATCH_SIZE = 512, 256
    assert "GEMMA_UBATCH_SIZE=512" in found("gemma.E030").msg


def test_the_main_card_is_one_of_the_split(settings: Settings) -> None:
    settings.GEMMA_TENSOR_SPLIT = (3.0, 1.0)
    assert check_settings() == []
    settings.GEMMA_MAIN_GPU = 2
    assert "GEMMA_TENSOR_SPLIT=3,1" in found("gemma.E031").msg
    settings.GEMMA_TENSOR_SPLIT, settings.GEMMA_MAIN_GPU = (0.0, 1.0), 0
    assert "GEMMA_MAIN_GPU=0" in found("gemma.E031").msg


def test_a_batch_larger_than_the_context_is_told(settings: Settings) -> None:
    settings.GEMMA_BATCH_SIZE, settings.GEMMA_CONTEXT_SIZE = 2048, 1024
    assert "2048" in found("gemma.W004").msg


def test_more_threads_than_cores_are_told(settings: Settings) -> None:
    settings.GEMMA_THREADS = len(os.sched_getaffinity(0)) + 1
    assert "GEMMA_THREADS" in found("gemma.W005").msg


@pytest.mark.parametrize(
    ("network", "check_id"),
    [
        ("0.0.0.0/0", "gemma.E006"),
        ("::/0", "gemma.E006"),
        ("8.8.8.0/24", "gemma.E006"),
        ("172.16.0.0/12", "gemma.W007"),
    ],
)
def test_anonymous_callers_from_elsewhere(settings: Settings, network: str, check_id: str) -> None:
    settings.GEMMA_HOST = "0.0.0.0"
    settings.ANONYMOUS_NETWORKS = [*HERE, ipaddress.ip_network(network)]
    assert network in found(check_id).msg
    settings.JWT_ONLY = True
    assert check_settings() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_nobody_from_elsewhere_reaches_a_loopback_address(settings: Settings, host: str) -> None:
    settings.GEMMA_HOST = host
    settings.ANONYMOUS_NETWORKS = [ipaddress.ip_network("0.0.0.0/0")]
    assert check_settings() == []


def test_a_public_address_with_credentials_is_fine(settings: Settings) -> None:
    settings.GEMMA_HOST = "0.0.0.0"
    settings.ANONYMOUS_NETWORKS = HERE
    assert check_settings() == []


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SECRET", "JWT_SECRET_PRIMARY", "JWT_SECRET_PREVIOUS"])
def test_a_short_secret_is_an_error_that_does_not_show_it(settings: Settings, name: str) -> None:
    setattr(settings, name, "hunter2")
    message = found("gemma.E008")
    assert name in message.msg
    assert "7 bytes" in message.msg
    assert "hunter2" not in message.msg
    setattr(settings, name, "x" * 32)
    assert [message.id for message in check_settings()] == ["gemma.W037"] * (name == "JWT_SECRET_PREVIOUS")


def test_a_text_and_a_file_for_the_same_thing(settings: Settings) -> None:
    for name in ("JWT_SECRET", "DATABASE_URL", "SECRET_KEY", "GEMMA_CHAT_TEMPLATE"):
        environment = Environment({name: "a", f"{name}_FILE": "/b"})
        environment.names |= settings.ENVIRONMENT.names
        settings.ENVIRONMENT = environment
        assert found("gemma.E009").msg == f"{name} and {name}_FILE are both set."


def test_a_login_ends_no_earlier_than_its_access_token(settings: Settings) -> None:
    settings.JWT_ACCESS_SECS, settings.JWT_REFRESH_SECS = 3600, 600
    assert "JWT_ACCESS_SECS=3600" in found("gemma.E036").msg


def test_a_previous_key_without_a_new_one(settings: Settings) -> None:
    settings.JWT_SECRET_PREVIOUS = "x" * 32
    assert "JWT_SECRET_PREVIOUS" in found("gemma.W037").msg
    settings.JWT_SECRET_PRIMARY = "y" * 32
    assert check_settings() == []


def test_heartbeats_too_rare_for_their_claims(settings: Settings) -> None:
    settings.HEARTBEAT_SECS, settings.CLAIM_TTL_SECS = 4.0, 10.0
    assert "HEARTBEAT_SECS=4" in found("gemma.E010").msg


def test_one_caller_could_fill_the_queue(settings: Settings) -> None:
    settings.QUEUE_MAX, settings.QUEUE_MAX_PER_CALLER = 10, 11
    assert "QUEUE_MAX=10" in found("gemma.W011").msg


def test_any_host_name(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    assert "ALLOWED_HOSTS" in found("gemma.W012").msg


def test_a_data_directory_in_the_place_of_a_file(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings.GEMMA_DATA_DIR = tmp_path / "file" / "below"
    assert str(settings.GEMMA_DATA_DIR) in found("gemma.E013").msg


def test_a_misspelt_variable_is_told_with_the_right_one(settings: Settings) -> None:
    environment = Environment({"GEMMA_CONTEXT_SISE": "1024"})
    environment.names |= settings.ENVIRONMENT.names
    settings.ENVIRONMENT = environment
    message = found("gemma.W014")
    assert "GEMMA_CONTEXT_SISE" in message.msg
    assert message.hint == "Did you mean GEMMA_CONTEXT_SIZE?"


def test_every_id_is_used_once_and_tested() -> None:
    """Ids are looked up by operators: none may name two things, and each has a test above."""
    ids = re.findall(r'id="(gemma\.[EW]\d{3})"', (PROJECT / "gemma_project" / "checks.py").read_text())
    assert len(ids) == len(RULES) + 2  # two rules have an error and a warning
    assert len({check_id[-3:] for check_id in ids}) == len(ids)
    tests = Path(__file__).read_text()
    assert [check_id for check_id in ids if check_id not in tests] == []
