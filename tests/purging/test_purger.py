"""The worker's part step by step: in order, once each, and again after whatever went wrong."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import redis
from django.db import connection
from django.utils import timezone

from chat.models import Conversation
from inference.dispatch.cache_purge import PurgeOrder
from inference.dispatch.state_folder import StateFolder
from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.entries import KVSnapshot
from inference.engine.kv_cache.purging import PurgedTags
from inference.engine.kv_cache.state_files import StateHeader, write_state
from inference.models import PurgeRequest
from inference.queue.purges import purge_status, request_purge
from inference.runtime import compaction
from inference.runtime.redis_client import fence_key, log_key, shared_client
from inference.token_stream import redis_log
from inference.token_stream.entries import AnyEntry, EndEntry, TokenEntry
from inference.worker import purger as purger_module
from inference.worker import storage_purge
from inference.worker.purger import Purger
from inference.worker.state_leftovers import remove_purged_states


@dataclass
class Runners:
    """Answers at once, or never."""

    is_there: bool = True
    tags: list[list[str]] = field(default_factory=list)

    def purge(self, tags: Sequence[str]) -> PurgeOrder:
        self.tags.append(list(tags))
        order = PurgeOrder(tags)
        if self.is_there:
            order.finish()
        return order


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> Runners:
    monkeypatch.setattr(purger_module, "ANSWER_SECS", 0.01)
    monkeypatch.setattr(storage_purge, "compact_database", lambda: True)
    monkeypatch.setattr(storage_purge, "compact_redis", lambda client: True)
    return Runners()


def aged() -> None:
    """End the logs, as if their readers had received the end."""
    PurgeRequest.objects.update(created_at=timezone.now() - timedelta(seconds=10))


def stages() -> list[str]:
    return [row.stage for row in PurgeRequest.objects.order_by("pk")]


@pytest.mark.django_db
class TestSteps:
    def test_all_of_them(self, runners: Runners, redis_client: "redis.Redis[str]") -> None:
        generation_id = uuid4()
        entries: list[AnyEntry] = [
            TokenEntry(index=1, token=7, text="secret", device="cpu"),
            EndEntry(index=1, status="complete"),
        ]
        redis_log.append(shared_client(), [redis_log.Append(generation_id, 1, entries)])
        request_purge(reason="conversation", tags=["a"], generation_ids=[generation_id])
        purger = Purger(runners)
        purger.run_once()
        assert stages() == ["logs"], "its readers get their time"
        assert redis_client.exists(log_key(generation_id))
        aged()
        purger.run_once()
        assert stages() == ["done"]
        assert not redis_client.exists(log_key(generation_id))
        assert runners.tags == [["a"]]
        assert purge_status().n_pending == 0

    def test_a_late_writer_cannot_begin_the_log_anew(self, runners: Runners, redis_client: "redis.Redis[str]") -> None:
        generation_id = uuid4()
        redis_log.close(shared_client(), generation_id, 2, EndEntry(index=0, status="interrupted"))
        redis_log.remove_entries(shared_client(), [generation_id])
        assert redis_client.exists(fence_key(generation_id))
        late = redis_log.Append(generation_id, 1, [TokenEntry(index=1, token=7, text="secret", device="cpu")])
        [appended] = redis_log.append(shared_client(), [late])
        assert appended.verdict is redis_log.Verdict.STALE
        assert not redis_client.exists(log_key(generation_id))

    def test_without_an_answer_it_is_tried_again(self, runners: Runners) -> None:
        runners.is_there = False
        request_purge(reason="conversation", tags=["a"])
        aged()
        purger = Purger(runners)
        purger.run_once()
        assert stages() == ["states"]
        runners.is_there = True
        purger.run_once()
        assert stages() == ["done"]

    def test_another_worker_s_requests_are_for_our_runners_too(self, runners: Runners) -> None:
        request_purge(reason="conversation", tags=["a"])
        Purger(runners).run_once()
        ours = Runners()
        purger = Purger(ours)
        purger.run_once()
        purger.run_once()
        assert ours.tags == [["a"]], "once"

    def test_a_new_worker_begins_with_all_that_was_deleted(self, runners: Runners) -> None:
        request_purge(reason="conversation", tags=["a"])
        request_purge(reason="memory", tags=["b/0"])
        Purger(runners).run_once()
        PurgeRequest.objects.update(created_at=timezone.now() - timedelta(days=2))
        later = Runners()
        Purger(later).begin()
        assert [sorted(tags) for tags in later.tags] == [["a", "b/0"]]

    def test_files_are_rewritten_at_most_for_a_part_of_the_time(
        self, runners: Runners, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, calls = [100.0], []

        def compact() -> bool:
            calls.append(now[0])
            now[0] += 2.0
            return True

        monkeypatch.setattr(storage_purge, "compact_database", compact)
        purger = Purger(runners, clock=lambda: now[0])
        for _ in range(60):
            request_purge(reason="conversation", tags=["a"])
            aged()
            purger.run_once()
            now[0] += 1.0
        assert len(calls) == 2
        assert calls[1] - calls[0] >= 40

    def test_a_rewriting_that_failed_is_done_again(self, runners: Runners, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = iter([False, True])
        monkeypatch.setattr(storage_purge, "compact_redis", lambda client: next(answers))
        monkeypatch.setattr(storage_purge, "SHORTEST_REST_SECS", 0.0)
        monkeypatch.setattr(storage_purge, "STORAGE_REST", 0)
        request_purge(reason="conversation", tags=["a"])
        aged()
        purger = Purger(runners)
        purger.run_once()
        assert stages() == ["storage"]
        purger.run_once()
        assert stages() == ["done"]

    def test_rows_go_after_a_time(self, runners: Runners, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage_purge, "SHORTEST_REST_SECS", 0.0)
        purger = Purger(runners)
        request_purge(reason="conversation", tags=["a"])
        aged()
        purger.run_once()
        PurgeRequest.objects.update(storage_at=timezone.now() - timedelta(days=storage_purge.KEEP_DAYS + 1))
        request_purge(reason="conversation", tags=["b"])
        aged()
        purger.run_once()
        assert [row.tags for row in PurgeRequest.objects.all()] == [["b"]]


class TestFiles:
    def test_files_of_purged_owners_and_torn_ones_go(self, tmp_path: Path) -> None:
        cache, shm = tmp_path / "kv-cache", tmp_path / "shm"
        shm.mkdir()
        disk = DiskStore(cache, 1 << 20, "any settings")
        tokens = np.arange(100, dtype=np.int32)
        for number, tags in enumerate([{"a/0"}, {"a/0", "b/0"}, {"b/0"}, set()]):
            assert disk.write(KVSnapshot(tokens + number, 0, tags=frozenset(tags)), b"state")
        disk.close(10)
        (cache / "torn.4194000.tmp").write_bytes(b"half")
        (cache / f"living.{1}.tmp").write_bytes(b"half")
        moves = StateFolder(shm, 100).new()
        for name, tag in (("1", "a/0"), ("2", "b/0")):
            write_state(moves / f"{name}.move", StateHeader("s", tokens.tobytes(), 0, False, 5, [tag]), b"state")
        purged = PurgedTags()
        purged.add(["a"])
        assert remove_purged_states(purged, cache_dir=cache, shm_dir=shm) == 3
        assert len(list(cache.glob("*.kv"))) == 3
        assert [path.name for path in cache.glob("*.tmp")] == ["living.1.tmp"]
        assert [path.name for path in moves.iterdir()] == ["2.move"]

    def test_folders_that_are_not_there(self, tmp_path: Path) -> None:
        assert remove_purged_states(PurgedTags(), cache_dir=tmp_path / "none", shm_dir=tmp_path / "nor this") == 0


def contents(path: Path) -> bytes:
    """Return a file of an open database, read by another process.

    A process that closes a descriptor of the file of its own database loses SQLite's locks on it (POSIX), and other
    processes would write beside it.
    """
    return subprocess.run(["cat", str(path)], capture_output=True, check=True).stdout


@pytest.mark.django_db(transaction=True)
class TestCompaction:
    def test_what_was_deleted_is_in_no_page(self) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("files of PostgreSQL are its own")
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA secure_delete=OFF")
        try:
            self._delete_and_search()
        finally:
            connection.close()

    def _delete_and_search(self) -> None:
        path = Path(connection.settings_dict["NAME"])
        PurgeRequest.objects.bulk_create(
            PurgeRequest(reason="x", tags=[f"Quetzalcoatlus {number} " * 20]) for number in range(300)
        )
        everything = [path, path.with_name(f"{path.name}-wal")]
        assert any(b"Quetzalcoatlus" in contents(each) for each in everything)
        PurgeRequest.objects.all().delete()
        assert compaction.compact_database()
        assert not any(b"Quetzalcoatlus" in contents(each) for each in everything if each.exists())

    def test_the_text_index_has_no_entry_of_what_was_deleted(self) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("files of PostgreSQL are its own")
        path = Path(connection.settings_dict["NAME"])
        conversations = [
            Conversation.objects.create(owner="local", title=f"\u07d8\u07e3\u07dd {number}") for number in range(40)
        ]
        everything = [path, path.with_name(f"{path.name}-wal")]
        trigram = b"0" + "\u07d8\u07e3\u07dd".encode()  # as FTS5 begins a term
        try:
            assert any(trigram in contents(each) for each in everything)
            for conversation in conversations:
                conversation.delete()
            assert compaction.compact_database()
            assert not any(trigram in contents(each) for each in everything if each.exists())
        finally:
            connection.close()

    def test_a_large_database_is_not_copied_but_overwritten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if connection.vendor != "sqlite":
            pytest.skip("files of PostgreSQL are its own")
        monkeypatch.setattr(compaction, "MAX_VACUUM_BYTES", 0)
        self._delete_and_search()

    def test_the_append_only_file_is_rewritten(self, redis_client: "redis.Redis[str]") -> None:
        redis_client.config_set("appendonly", "yes")
        try:
            before = redis_client.info("commandstats").get("cmdstat_bgrewriteaof", {}).get("calls", 0)
            assert compaction.compact_redis(shared_client())
            assert redis_client.info("commandstats")["cmdstat_bgrewriteaof"]["calls"] == before + 1
        finally:
            redis_client.config_set("appendonly", "no")

    def test_without_one_there_is_nothing_to_do(self, redis_client: "redis.Redis[str]") -> None:
        redis_client.config_set("appendonly", "no")
        assert compaction.compact_redis(shared_client())
