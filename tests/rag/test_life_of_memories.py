"""Files that change, move, vanish or change hands: the store has what they hold now, and only that."""

import io
import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from chat.rag.models import ImportedFile, Note, Passage, Segment, Transcript
from chat.services.accounts.users import delete_user
from tests.rag.test_import_memories import imports

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("words_as_vectors")]


def texts() -> set[str]:
    lines = set(Segment.objects.values_list("text", flat=True))
    # Nothing is found that is not stored.
    assert Passage.objects.count() == len(lines) + Note.objects.count()
    return lines | set(Note.objects.values_list("body", flat=True))


def rows(**jobs: str) -> str:
    return "".join(json.dumps({"job_id": job, "text": text, "speaker": "Ann"}) + "\n" for job, text in jobs.items())


def forgets(*args: object) -> str:
    out = io.StringIO()
    call_command("forget_memories", *map(str, args), stdout=out, no_color=True)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "talk.jsonl").write_text(rows(a="one", b="two"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notes.md").write_text("# Budget\nthree\n\n# Dates\nfour\n")
    imports(tmp_path)
    assert texts() == {"one", "two", "three", "four"}
    return tmp_path


def test_a_job_that_was_taken_out(folder: Path) -> None:
    (folder / "talk.jsonl").write_text(rows(b="two"))
    assert "1 removed" in imports(folder)[1]
    assert texts() == {"two", "three", "four"}


def test_a_job_that_went_to_another_file(folder: Path) -> None:
    (folder / "talk.jsonl").write_text(rows(b="two"))
    (folder / "also.jsonl").write_text(rows(a="one"))
    for path in (folder / "also.jsonl", folder / "talk.jsonl"):
        imports(path)
        assert texts() == {"one", "two", "three", "four"}


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_emptied_file(folder: Path, content: str) -> None:
    (folder / "talk.jsonl").write_text(content)
    (folder / "deep" / "notes.md").write_text(content)
    status, out, err = imports(folder)
    assert (status, "4 removed" in out) == (0, True)
    assert err.count("holds nothing to import") == 2
    assert texts() == set()


@pytest.mark.parametrize("damage", ["{", '{"text": 5, "speaker": "Ann", "job_id": "c"}\n{'])
def test_a_damaged_file_costs_nothing(folder: Path, damage: str) -> None:
    (folder / "talk.jsonl").write_text(rows(a="changed") + damage)
    status, _, err = imports(folder)
    assert status == 1
    assert "was not removed" in err
    assert {"changed", "two", "three", "four"} <= texts()
    (folder / "talk.jsonl").write_bytes(b"\x80" * 50)
    assert imports(folder)[0] == 1
    assert {"changed", "two", "three", "four"} <= texts()


class TestRenamed:
    def test_the_new_name_replaces_the_old_one(self, folder: Path) -> None:
        (folder / "deep" / "notes.md").rename(folder / "plan.md")
        assert "notes.md before" in imports(folder)[2]
        assert texts() == {"one", "two", "three", "four"}
        assert set(Note.objects.values_list("metadata__file", flat=True)) == {"plan.md"}
        assert ImportedFile.objects.count() == 2
        assert "0 segments and 0 notes imported" in imports(folder)[1]

    def test_a_recording(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("Ann: one\nBob: two\n")
        imports(tmp_path)
        (tmp_path / "a.txt").rename(tmp_path / "b.txt")
        imports(tmp_path)
        assert texts() == {"one", "two"}
        assert Transcript.objects.get().title == "b"

    def test_a_copy_is_a_file_of_its_own(self, folder: Path) -> None:
        (folder / "copy.md").write_text((folder / "deep" / "notes.md").read_text())
        imports(folder)
        assert Note.objects.count() == 4

    def test_a_folder(self, folder: Path) -> None:
        (folder / "deep").rename(folder / "elsewhere")
        imports(folder)
        assert texts() == {"one", "two", "three", "four"}


class TestPrune:
    def test_files_that_are_gone(self, folder: Path) -> None:
        (folder / "deep" / "notes.md").unlink()
        imports(folder)
        assert texts() == {"one", "two", "three", "four"}
        assert "1 files are gone: 2 transcripts and notes removed." in imports(folder, "--prune")[1]
        assert texts() == {"one", "two"}
        assert ImportedFile.objects.count() == 1

    def test_a_file_that_is_gone_may_be_named(self, folder: Path) -> None:
        (folder / "talk.jsonl").unlink()
        with pytest.raises(CommandError):
            imports(folder / "talk.jsonl")
        imports(folder / "talk.jsonl", "--prune")
        assert texts() == {"three", "four"}

    def test_only_below_the_path_and_of_the_owner(self, folder: Path) -> None:
        User.objects.create(username="ann")
        (folder / "deep" / "notes.md").unlink()
        (folder / "talk.jsonl").unlink()
        (folder / "new.md").write_text("five")
        imports(folder / "new.md", "--prune")
        imports(folder, "--prune", "--owner", "ann")
        assert texts() == {"one", "two", "three", "four", "five"}
        # The beginning of a name is no folder.
        (folder / "dee").mkdir()
        (folder / "dee" / "six.md").write_text("six")
        imports(folder / "dee", "--prune")
        assert {"three", "four"} <= texts()

    def test_a_folder_that_is_not_mounted(self, folder: Path) -> None:
        (folder / "deep" / "notes.md").unlink()
        with pytest.raises(CommandError, match="is empty"):
            imports(folder / "deep", "--prune")
        assert {"three", "four"} <= texts()

    def test_a_renamed_file_stays(self, folder: Path) -> None:
        (folder / "deep" / "notes.md").rename(folder / "plan.md")
        imports(folder, "--prune")
        assert texts() == {"one", "two", "three", "four"}


class TestOwners:
    @pytest.mark.parametrize(("first", "second"), [((), ("--owner", "ann")), (("--owner", "ann"), ("--shared",))])
    def test_a_file_moves(self, tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        ann = User.objects.create(username="ann")
        (tmp_path / "a.jsonl").write_text(rows(a="one") + '{"title": "T", "body": "two"}\n')
        imports(tmp_path, *first)
        created_at = Transcript.objects.get().created_at
        assert "2 removed" in imports(tmp_path, *second)[1]
        assert texts() == {"one", "two"}
        owner = f"user:{ann.pk}" if second[0] == "--owner" else ""
        assert {Transcript.objects.get().owner, Note.objects.get().owner} == {owner}
        assert Transcript.objects.get().created_at == created_at

    @pytest.mark.parametrize("changed", [False, True])
    def test_a_file_of_a_user_is_shared_only_when_that_is_said(self, tmp_path: Path, changed: bool) -> None:
        ann = User.objects.create(username="ann")
        path = tmp_path / "a.jsonl"
        path.write_text(rows(a="one") + '{"title": "T", "body": "two"}\n')
        imports(tmp_path, "--owner", "ann")
        if changed:
            path.write_text(rows(a="three"))
        status, _, err = imports(tmp_path)
        assert status == 1
        assert "its memories belong to a user: import it with --owner NAME, or with --shared" in err
        assert {Transcript.objects.get().owner, Note.objects.get().owner} == {f"user:{ann.pk}"}
        assert texts() == {"one", "two"}

    def test_a_damaged_file_moves_what_is_whole(self, tmp_path: Path) -> None:
        User.objects.create(username="ann")
        (tmp_path / "a.jsonl").write_text(rows(a="one", b="two"))
        imports(tmp_path)
        (tmp_path / "a.jsonl").write_text(rows(a="one") + "{")
        imports(tmp_path, "--owner", "ann")
        assert sorted(Transcript.objects.values_list("owner", "job_id"))[0] == ("", "b")
        assert Transcript.objects.count() == 2

    def test_a_user_takes_the_names_of_files_along(self, folder: Path) -> None:
        ann = User.objects.create(username="ann")
        imports(folder, "--owner", "ann")
        delete_user(ann)
        assert not ImportedFile.objects.exists()
        assert texts() == set()


class TestDryRun:
    def test_nothing_is_changed(self, folder: Path) -> None:
        User.objects.create(username="ann")
        before = [list(model.objects.order_by("pk").values()) for model in (Transcript, Note, Passage, ImportedFile)]
        (folder / "talk.jsonl").write_text(rows(b="new", c="five"))
        (folder / "deep" / "notes.md").unlink()
        out = imports(folder, "--dry-run", "--prune")[1]
        assert "A dry run: nothing was changed." in out
        assert "2 segments and 0 notes imported, 0 transcripts and notes unchanged, 1 removed." in out
        assert "1 files are gone: 2 transcripts and notes removed." in out
        assert "2 removed" in imports(folder, "--dry-run", "--owner", "ann")[1]
        after = [list(model.objects.order_by("pk").values()) for model in (Transcript, Note, Passage, ImportedFile)]
        assert before == after

    def test_it_foretells(self, folder: Path) -> None:
        (folder / "deep" / "notes.md").write_text("# Budget\nthree\n\n# Cake\nsix\n")
        summary = "2 files: 0 segments and 1 notes imported, 3 transcripts and notes unchanged, 1 removed."
        assert summary in imports(folder, "--dry-run")[1]
        assert summary in imports(folder)[1]


class TestForget:
    def test_a_file_a_folder_and_a_job(self, folder: Path) -> None:
        assert "0 transcripts and 2 notes would be deleted." in forgets(folder / "deep", "--dry-run")
        assert len(texts()) == 4
        assert "0 transcripts and 2 notes deleted." in forgets(folder / "deep")
        assert "1 transcripts and 0 notes deleted." in forgets("--job", "a")
        assert texts() == {"two"}
        (folder / "talk.jsonl").unlink()
        forgets(folder / "talk.jsonl")
        assert texts() == set()
        assert not ImportedFile.objects.exists()

    def test_all_of_a_user(self, folder: Path) -> None:
        User.objects.create(username="ann")
        (folder / "mine.md").write_text("five")
        imports(folder / "mine.md", "--owner", "ann")
        with pytest.raises(CommandError, match="no such memories"):
            forgets("--job", "a", "--owner", "ann")
        assert "0 transcripts and 1 notes deleted." in forgets("--owner", "ann")
        assert texts() == {"one", "two", "three", "four"}

    @pytest.mark.parametrize("args", [[], ["--job", "a", "x.md"], ["/no/such/file"], ["--job", "none"]])
    def test_refused(self, folder: Path, args: list[str]) -> None:
        with pytest.raises(CommandError):
            forgets(*args)
        assert len(texts()) == 4


def test_memories_of_earlier_versions_are_adopted(folder: Path) -> None:
    # Before files were recorded, ids alone said where a memory came from.
    Note.objects.update(file=None)
    Transcript.objects.update(file=None)
    ImportedFile.objects.all().delete()
    (folder / "deep" / "notes.md").write_text("# Budget\nthree\n")
    assert "1 removed" in imports(folder)[1]
    assert texts() == {"one", "two", "three"}
    assert not Transcript.objects.filter(file=None).exists()
