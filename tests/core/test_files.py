"""Files are written whole or not at all; digests are of their bytes."""

import hashlib
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.files import atomic_path, sha256_of_file, write_atomically


def test_text_and_bytes_are_written_into_folders_that_are_missing(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "deep" / "a.txt", "größer\n")
    write_atomically(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "new" / "deep" / "a.txt").read_bytes() == "größer\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"


def _fail_halfway(path: Path) -> None:
    with atomic_path(path) as part:
        part.write_text("half")
        assert part.parent == path.parent and part != path
        raise OSError("disk full")


@pytest.mark.parametrize("there", [True, False])
def test_an_error_leaves_what_was_there_and_no_part(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "a.txt"
    if there:
        path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        _fail_halfway(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == (["old"] if there else [])


def test_a_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_digest_is_of_all_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than is read at a time
    (tmp_path / "a").write_bytes(content)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(OSError, match="nowhere"):
        sha256_of_file(tmp_path / "nowhere")
