"""Files of a cache: who may have written what is read, and that nobody sees half of one."""

import os
import stat
from pathlib import Path

import pytest

from miniinfer_cli.backends.cuda.driver import cache_files
from miniinfer_cli.backends.cuda.driver.cache_files import read_trusted, write_whole
from miniinfer_cli.trusted_files import is_trusted


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cache" / "file"
    write_whole(path, b"contents")
    return path


def test_folder_and_file_are_the_accounts_alone(tmp_path: Path):
    path = tmp_path / "made" / "when needed" / "file"
    for contents in (b"one", b"", b"another"):
        write_whole(path, contents)
        assert read_trusted(path) == contents
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path)] == [0o700, 0o600]
    assert list(path.parent.iterdir()) == [path]


def test_reading_what_is_not_there_makes_nothing(tmp_path: Path):
    assert read_trusted(tmp_path / "absent" / "file") is None
    assert not (tmp_path / "absent").exists()
    assert read_trusted(tmp_path) is None, "a folder is no file"
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert read_trusted(tmp_path / "pipe") is None, "nobody waits for a pipe"


@pytest.mark.parametrize(
    ("mode", "trusted"), [(0o700, True), (0o755, True), (0o775, True), (0o702, False), (0o777, False), (0o1777, False)]
)
def test_who_may_write_in_a_folder(mode: int, trusted: bool, file: Path):
    file.parent.chmod(mode)
    assert is_trusted(file.parent.stat()) == trusted
    assert read_trusted(file) == (b"contents" if trusted else None)
    if not trusted:
        with pytest.raises(PermissionError, match="everybody may write in it"):
            write_whole(file, b"other")
        assert file.read_bytes() == b"contents" and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(("mode", "trusted"), [(0o600, True), (0o664, True), (0o666, False)])
def test_who_may_write_a_file(mode: int, trusted: bool, file: Path):
    file.chmod(mode)
    assert read_trusted(file) == (b"contents" if trusted else None)
    write_whole(file, b"mended")
    assert read_trusted(file) == b"mended"


@pytest.mark.parametrize(("me", "owner", "trusted"), [(7, 7, True), (7, 0, True), (7, 8, False), (0, 0, True), (0, 8, False)])
def test_whose_it_is(me: int, owner: int, trusted: bool, file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: me)
    fields = list(file.stat())
    fields[stat.ST_UID] = owner
    assert is_trusted(os.stat_result(fields)) == trusted


@pytest.mark.parametrize("whose", ["file", "folder"])
def test_a_strangers_file_or_folder(whose: str, file: Path, monkeypatch: pytest.MonkeyPatch):
    strange = (file if whose == "file" else file.parent).stat().st_ino
    monkeypatch.setattr(cache_files, "is_trusted", lambda status: status.st_ino != strange)
    assert read_trusted(file) is None
    if whose == "file":
        write_whole(file, b"other")
        assert file.read_bytes() == b"other"
    else:
        with pytest.raises(PermissionError, match="another account's"):
            write_whole(file, b"other")
        assert file.read_bytes() == b"contents"


def test_a_huge_file_is_not_read(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache_files, "_LIMIT", len(b"contents"))
    assert read_trusted(file) == b"contents"
    monkeypatch.setattr(cache_files, "_LIMIT", len(b"contents") - 1)
    assert read_trusted(file) is None


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_the_old_file_and_no_rest(fault: BaseException, file: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self: Path, target: Path) -> None:
        raise fault

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(fault)):
        write_whole(file, b"new")
    assert file.read_bytes() == b"contents" and list(file.parent.iterdir()) == [file]


def test_a_place_that_cannot_be_a_folder(file: Path):
    with pytest.raises(FileExistsError):
        write_whole(file / "inside", b"contents")
    with pytest.raises(NotADirectoryError):
        write_whole(file / "further" / "inside", b"contents")
    assert read_trusted(file / "inside") is None
