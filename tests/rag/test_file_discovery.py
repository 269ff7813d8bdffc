"""Files below a folder that is imported, and links in it that lead elsewhere."""

from pathlib import Path

import pytest

from chat.rag.ingest.file_discovery import find_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a note, beside one with a secret."""
    folder, outside = tmp_path / "notes", tmp_path / "outside"
    for made in (folder, outside):
        made.mkdir()
    (folder / "note.md").write_text("a note")
    (outside / "secret.md").write_text("a secret")
    return folder


def test_links_are_not_followed(folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / "link.md").symlink_to(outside / "secret.md")
    (folder / "below").symlink_to(outside, target_is_directory=True)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "dangling.md").symlink_to(folder / "nothing.md")
    (folder / "twin.md").symlink_to(folder / "note.md")
    files, n_skipped = find_files([folder])
    assert files == [folder / "note.md"]
    assert n_skipped >= 2, "the links to files are counted"


def test_what_the_operator_names_is_followed(folder: Path) -> None:
    outside = folder.parent / "outside"
    (folder / "link.md").symlink_to(outside / "secret.md")
    (folder.parent / "notes-link").symlink_to(folder, target_is_directory=True)
    assert find_files([folder / "link.md"])[0] == [folder / "link.md"]
    assert find_files([folder.parent / "notes-link"])[0] == [folder.parent / "notes-link" / "note.md"]
    assert find_files([outside])[0] == [outside / "secret.md"]
