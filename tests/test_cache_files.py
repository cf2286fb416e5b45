"""Files of a cache: who may have written what is read, and that nobody sees half of one."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from miniinfer_cli import cache_files
from miniinfer_cli.cache_files import CacheFolder, read_trusted, write_whole
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


NAMES = re.compile(r"[a-z]\d*")


def folder(path: Path, limit: int = 100) -> CacheFolder:
    return CacheFolder(path, limit, NAMES)


def aged(path: Path, *names: str) -> None:
    """Lets the files have been used one after the other, long ago."""
    for number, name in enumerate(names):
        os.utime(path / name, (1000 + number, 1000 + number))


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path):
    files = folder(tmp_path)
    for name in ("a", "b", "c", "d"):
        files.write(name, b"x" * 25)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d"]
    aged(tmp_path, "b", "a", "d", "c")
    assert files.read("b") == b"x" * 25  # which is a use
    files.write("e", b"x" * 30)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c", "e"]
    assert files.read("a") is None


def test_what_others_wrote_counts_and_what_is_not_ours_stays(tmp_path: Path):
    (tmp_path / "README.txt").write_bytes(b"y" * 500)
    (tmp_path / "f").symlink_to(tmp_path / "README.txt")
    folder(tmp_path, 1000).write("a", b"x" * 300)
    folder(tmp_path).write("b", b"x" * 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.txt", "b", "f"]


def test_more_than_the_limit_by_itself_is_not_kept_and_drives_nothing_out(tmp_path: Path):
    files = folder(tmp_path)
    files.write("a", b"x" * 90)
    files.write("b", b"x" * 101)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    nothing = folder(tmp_path / "nothing", 0)
    nothing.write("a", b"x")
    assert not (tmp_path / "nothing").exists()


WRITER = """
import re, sys
from pathlib import Path
from miniinfer_cli.cache_files import CacheFolder
files = CacheFolder(Path(sys.argv[1]), 16_000, re.compile(r"[a-z]\\d*"))
for number in range(100):
    files.write(f"{sys.argv[2]}{number}", b"x" * 1000)
    found = files.read(f"{sys.argv[2]}{max(number - 3, 0)}")
    assert found in (None, b"x" * 1000)
"""


def test_processes_share_a_folder_and_its_limit(tmp_path: Path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"]
    assert [w.wait(60) for w in writers] == [0, 0, 0]
    sizes = [p.stat().st_size for p in tmp_path.iterdir()]
    assert set(sizes) == {1000}
    assert 10_000 <= sum(sizes) <= 16_000 + 3 * 1000 + 3 * 1000
