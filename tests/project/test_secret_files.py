"""Secrets made on first use: one value however many processes make it at once, readable by its user alone."""

import threading
from pathlib import Path

from gemma_project.secret_files import read_or_create


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    secret = read_or_create(path)
    assert len(secret) >= 64
    assert read_or_create(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_existing_secret_is_kept(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("given by the operator\n")
    assert read_or_create(tmp_path / "secret") == "given by the operator"


def test_many_at_once_read_the_same(tmp_path: Path) -> None:
    for round_number in range(20):
        path = tmp_path / str(round_number)
        barrier = threading.Barrier(8)
        seen: list[str] = []

        def make(path: Path = path, barrier: threading.Barrier = barrier, seen: list[str] = seen) -> None:
            barrier.wait()
            seen.append(read_or_create(path))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        assert len(set(seen)) == 1
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
