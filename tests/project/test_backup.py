"""Backup and restore: everything comes back, from a database in use, and what is no backup is refused."""

import gc
import gzip
import json
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from pytest_django import Settings

from chat.access.api_keys import issue_key
from chat.models import Conversation
from chat.rag.indexing import indexer
from gemma_project.backup import installation
from gemma_project.backup.archive import MANIFEST, Manifest, opened_archive, write_archive
from gemma_project.backup.errors import BackupError
from gemma_project.backup.installation import back_up, restore
from gemma_project.backup.sqlite import dump_sqlite, load_sqlite
from gemma_project.supervisor.lock import DataDirLock
from inference.models import Generation, Status
from tests.rag.builders import ask

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]


@pytest.fixture
def data_dir(tmp_path: Path, settings: Settings) -> Iterator[Path]:
    settings.GEMMA_DATA_DIR = tmp_path / "data"
    settings.GEMMA_DATA_DIR.mkdir()
    (settings.GEMMA_DATA_DIR / "secret_key").write_text("the secret key")
    yield Path(settings.GEMMA_DATA_DIR)
    close_connections_of_pools()


def close_connections_of_pools() -> None:
    """Close the connections of pool threads, which stay open and would read the file that a restore has replaced.

    Outside of the tests no process of the service runs during a restore.
    """
    for pool in [each for each in gc.get_objects() if isinstance(each, ThreadPoolExecutor)]:
        all_there = threading.Barrier(max(1, len(pool._threads)))

        def close(all_there: threading.Barrier = all_there) -> None:
            all_there.wait(30)
            connection.close()

        if pool._threads and not pool._shutdown:
            wait([pool.submit(close) for _ in range(all_there.parties)], 60)


def furnish() -> None:
    user = User.objects.create_user("ann", password="a rather long password")
    issue_key(user, name="x")
    conversation = Conversation.objects.create(owner=f"user:{user.pk}", title="Größe 😀")
    for number, status in enumerate(Status):
        generation = Generation.objects.create(
            owner="local", params={"a": [1]}, status=status, text="\t\\N\n'", prompt=b"\0\xff\x01"
        )
        conversation.messages.create(position=number, role="assistant", generation=generation)
    indexer.add_note(owner="", title="harbour", body="The harbour opens on Monday.")


def rows() -> dict[str, list[Any]]:
    """All rows of all tables that the service fills, but the log of migrations."""
    return {
        model._meta.label: sorted(map(str, model._default_manager.values_list()))
        for app in ("auth", "chat", "memory", "inference")
        for model in apps.get_app_config(app).get_models()
    }


def test_everything_comes_back(data_dir: Path, tmp_path: Path) -> None:
    furnish()
    before = rows()
    path = tmp_path / "b.tar.gz"
    back_up(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    Conversation.objects.all().delete()
    Generation.objects.all().delete()
    User.objects.update(password="!")
    User.objects.create_user("mallory")
    (data_dir / "secret_key").write_text("another")
    restore(path, replace=True)
    close_connections_of_pools()
    assert rows() == before
    assert (data_dir / "secret_key").read_text() == "the secret key"
    assert (data_dir / "secret_key").stat().st_mode & 0o777 == 0o600
    assert User.objects.get().check_password("a rather long password")
    # Words are found by an index beside the tables, and new rows get new numbers.
    assert ask("harbour opens").sources
    assert User.objects.create_user("bob").pk > User.objects.get(username="ann").pk
    Conversation.objects.create(owner="local")


def test_a_database_in_use(data_dir: Path, tmp_path: Path) -> None:
    """What was committed before the backup began is in it, while another thread writes all the time."""
    furnish()
    done = threading.Event()

    def write() -> None:
        try:
            while not done.wait(0.002):
                Conversation.objects.create(owner="local", title="during")
        finally:
            connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            back_up(tmp_path / f"{number}.tar.gz")
    finally:
        done.set()
        writer.join()
    restore(tmp_path / "2.tar.gz", replace=True)
    assert Conversation.objects.filter(title="Größe 😀").count() == 1
    assert Generation.objects.count() == len(Status)


def test_an_installation_with_users_is_not_replaced_by_accident(data_dir: Path, tmp_path: Path) -> None:
    furnish()
    back_up(tmp_path / "b.tar.gz")
    with pytest.raises(CommandError, match="--replace"):
        call_command("restore", str(tmp_path / "b.tar.gz"))
    assert User.objects.exists()


def test_a_running_service_is_not_replaced(data_dir: Path, tmp_path: Path) -> None:
    back_up(tmp_path / "b.tar.gz")
    with DataDirLock(data_dir), pytest.raises(CommandError, match="in use"):
        call_command("restore", str(tmp_path / "b.tar.gz"), "--replace")


class TestWhatIsNoBackup:
    def refused(self, path: Path) -> str:
        furnish()
        before = rows()
        with pytest.raises(BackupError) as caught:
            restore(path, replace=True)
        assert rows() == before
        return str(caught.value)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1f\x8b\x08"])
    def test_another_file(self, content: bytes, data_dir: Path, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(content)
        assert "cannot be read as an archive" in self.refused(tmp_path / "x")

    def test_a_missing_file(self, data_dir: Path, tmp_path: Path) -> None:
        assert "none.tar.gz" in self.refused(tmp_path / "none.tar.gz")

    def test_an_archive_that_is_cut(self, data_dir: Path, tmp_path: Path) -> None:
        back_up(tmp_path / "b.tar.gz")
        whole = (tmp_path / "b.tar.gz").read_bytes()
        (tmp_path / "b.tar.gz").write_bytes(whole[: len(whole) // 2])
        self.refused(tmp_path / "b.tar.gz")

    def test_an_archive_that_is_damaged_within_a_member(self, data_dir: Path, tmp_path: Path) -> None:
        plain = BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            member = tarfile.TarInfo("database/database.sqlite3")
            member.size = 200_000
            archive.addfile(member, BytesIO(bytes(member.size)))
        packed = bytearray(gzip.compress(plain.getvalue(), compresslevel=0))
        n_first = int.from_bytes(packed[11:13], "little")
        packed[10 + 5 + n_first + 1] ^= 0xFF  # the length of the second block
        (tmp_path / "x.tar.gz").write_bytes(packed)
        assert "cannot be read as an archive" in self.refused(tmp_path / "x.tar.gz")

    def test_a_member_that_was_changed(self, data_dir: Path, tmp_path: Path) -> None:
        back_up(tmp_path / "b.tar.gz")
        with opened_archive(tmp_path / "b.tar.gz", beside=data_dir) as (manifest, folder):
            write_archive(tmp_path / "c.tar.gz", folder, manifest)
            text = json.loads((folder / MANIFEST).read_text())
            changed = next(file for file in (folder / "database").iterdir())
            changed.write_bytes(changed.read_bytes() + b"x")
            with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
                for file in (file for file in folder.rglob("*") if file.is_file()):
                    archive.add(file, arcname=file.relative_to(folder).as_posix())
        assert text["format"] == 1
        assert "is damaged" in self.refused(tmp_path / "c.tar.gz")

    @pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
    def test_a_member_outside_of_the_folder(self, name: str, data_dir: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, BytesIO(b"x"))
        self.refused(tmp_path / "x.tar.gz")
        assert not (tmp_path / "outside").exists()

    def test_another_database_and_another_format(self, data_dir: Path, tmp_path: Path) -> None:
        changes: list[dict[str, Any]] = [{"engine": "oracle"}, {"format": 99}]
        for number, change in enumerate(changes):
            folder = tmp_path / str(number)
            folder.mkdir()
            known: dict[str, Any] = {
                "format": 1,
                "version": "x",
                "engine": "sqlite",
                "created_at": "",
                "migrations": [],
            }
            write_archive(tmp_path / f"{number}.tar.gz", folder, Manifest(**(known | change)))
            with pytest.raises(BackupError):
                restore(tmp_path / f"{number}.tar.gz", replace=True)


def with_migrations(path: Path, beside: Path, *more: tuple[str, str]) -> Path:
    """Write the archive again as if it had been made by a version with further migrations."""
    with opened_archive(path, beside=beside) as (manifest, folder):
        (folder / MANIFEST).unlink()
        changed = replace(manifest, version="99.1", migrations=[*manifest.migrations, *more])
        write_archive(path.with_name("changed.tar.gz"), folder, changed)
    return path.with_name("changed.tar.gz")


@pytest.mark.parametrize(
    "newer", [("chat", "0999_of_a_later_version"), ("auth", "0999_x"), ("another_app", "0001_initial")]
)
def test_a_backup_of_a_newer_version(newer: tuple[str, str], data_dir: Path, tmp_path: Path) -> None:
    furnish()
    back_up(tmp_path / "b.tar.gz")
    before = rows()
    path = with_migrations(tmp_path / "b.tar.gz", data_dir, newer)
    with pytest.raises(CommandError, match=r"version 99\.1, which is newer .*Install that version") as caught:
        call_command("restore", str(path), "--replace")
    assert ".".join(newer) in str(caught.value)
    assert rows() == before


def test_a_folder_that_is_not_there(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not a folder"):
        call_command("backup", str(tmp_path / "none" / "b.tar.gz"))


def test_the_version_is_the_projects() -> None:
    assert installation.service_version().count(".") == 2


def test_a_damaged_database_in_a_whole_archive(data_dir: Path, tmp_path: Path) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL checks each row while it is read")
    back_up(tmp_path / "b.tar.gz")
    with opened_archive(tmp_path / "b.tar.gz", beside=data_dir) as (manifest, folder):
        (folder / "database" / "database.sqlite3").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
        (folder / MANIFEST).unlink()
        write_archive(tmp_path / "c.tar.gz", folder, manifest)
    with pytest.raises(BackupError, match="damaged"):
        restore(tmp_path / "c.tar.gz", replace=True)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder of another filesystem."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        if Path(name).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm is no filesystem of its own")
        yield Path(name)


def test_a_database_on_another_filesystem(
    data_dir: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no file here")
    furnish()
    before = rows()
    dump_sqlite(tmp_path)
    connection.close()
    try:
        monkeypatch.setitem(connection.settings_dict, "NAME", str(elsewhere / "gemma.sqlite3"))
        load_sqlite(tmp_path)
        assert rows() == before
        assert (elsewhere / "gemma.sqlite3").stat().st_mode & 0o777 == 0o600
    finally:
        connection.close()


def test_a_database_whose_place_is_taken(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL has no file here")
    dump_sqlite(tmp_path)
    (tmp_path / "taken" / "x").mkdir(parents=True)
    monkeypatch.setitem(connection.settings_dict, "NAME", str(tmp_path / "taken"))
    with pytest.raises(BackupError, match="cannot be replaced"):
        load_sqlite(tmp_path)
    assert [file.name for file in tmp_path.glob(".*.part")] == []
