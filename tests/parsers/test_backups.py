"""Archives that claim to be backups, drawn: unpacked into their folder alone, or refused with a sentence."""

import gzip
import io
import tarfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gemma_project.backup.archive import MANIFEST, Manifest, opened_archive
from gemma_project.backup.errors import BackupError
from tests.faults.fuzzing import VALUES
from tests.parsers.drawing import DEEP, drawn, edited, foreign_json, objects

SOUND = {
    "format": 1,
    "version": "1",
    "engine": "sqlite",
    "created_at": "",
    "migrations": [["chat", "0001"]],
    "digests": {},
}
manifests = foreign_json(objects(list(SOUND), VALUES).map(lambda changes: SOUND | changes)) | st.sampled_from(DEEP)
NAMES = [
    "database/database.sqlite3",
    "../outside",
    "/tmp/gemma-outside",
    "a/../../outside",
    "x" * 300,
    "\udcff",
    "a\\b",
]
NAMES += ["secrets/secret_key", MANIFEST, ".", "", "database"]
KINDS = [tarfile.REGTYPE] * 6 + [
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CHRTYPE,
    tarfile.DIRTYPE,
    b"?",
]
members = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(KINDS), st.binary(max_size=9)), max_size=3)


def archive(manifest: bytes, entries: list[tuple[str, bytes, bytes]]) -> bytes:
    """Return a tar file, uncompressed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, content in [(MANIFEST, tarfile.REGTYPE, manifest), *entries]:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


whole = st.builds(archive, manifests, members)
files = (whole | whole.flatmap(lambda data: edited([data]))).map(gzip.compress)
files |= files.flatmap(lambda data: edited([data]))


def test_archives(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    n_opened = 0

    @drawn
    @given(files)
    def one(data: bytes) -> None:
        nonlocal n_opened
        path = tmp_path / "drawn.tar.gz"
        path.write_bytes(data)
        try:
            with opened_archive(path, beside=folder) as (manifest, unpacked):
                assert isinstance(manifest, Manifest)
                assert all(file.resolve().is_relative_to(unpacked.resolve()) for file in unpacked.rglob("*"))
                n_opened += 1
        except BackupError as error:
            assert str(path) in str(error)
            assert len(str(error)) < 2_000
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "drawn.tar.gz"]
        assert list(folder.iterdir()) == []

    one()
    assert n_opened > 0
    assert not Path("/tmp/gemma-outside").exists()
