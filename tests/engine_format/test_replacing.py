"""Files replaced whole or not at all, what they keep of the old file, and what becomes of abandoned partial files."""

import errno
import fcntl
import os
import re
import stat
from pathlib import Path

import pytest

from engine_format import NotDurable
from engine_format import replacing as module
from engine_format.replacing import expect_writable, replacing
from miniinfer_cli.errors import unwritable


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_the_mode_of_the_old_file_stays_and_none_may_read_meanwhile_who_could_not(tmp_path: Path, mode: int):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    with replacing(path) as file:
        file.write(b"new")
        (partial,) = tmp_path.glob(".miniinfer-*.partial")
        assert stat.S_IMODE(partial.stat().st_mode) == mode
        assert path.read_bytes() == b"old"
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode), names(tmp_path)) == (b"new", mode, ["a"])


def test_a_new_file_follows_the_umask_or_the_mode_asked_for(tmp_path: Path):
    before = os.umask(0o027)
    try:
        for name, mode in (("a", None), ("b", 0o600)):
            with replacing(tmp_path / name, mode=mode) as file:
                file.write(b"new")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in "ab"] == [0o640, 0o600]


def test_the_owner_of_the_old_file_stays_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    given: list[tuple[int, int]] = []

    def give_away(fd: int, user: int, group: int) -> None:
        given.append((user, group))
        raise PermissionError(errno.EPERM, "not root")

    monkeypatch.setattr(os, "fchown", give_away)
    with replacing(path) as file:
        file.write(b"new")
    assert given == [(path.stat().st_uid, path.stat().st_gid)]
    assert path.read_bytes() == b"new"


def test_abandoned_partial_files_are_removed_and_no_others(tmp_path: Path):
    abandoned, written = (tmp_path / f".miniinfer-{digits}.partial" for digits in ("0123456789ab", "ba9876543210"))
    kept = [".miniinfer-x.partial", "a.partial", ".miniinfer-0123456789ab.partial.old"]
    for path in (abandoned, written, *(tmp_path / k for k in kept)):
        path.write_bytes(b"half")
    (tmp_path / ".miniinfer-01.partial").mkdir()
    (tmp_path / ".miniinfer-02.partial").symlink_to(tmp_path / "a.partial")
    os.mkfifo(tmp_path / ".miniinfer-03.partial")
    special = [f".miniinfer-0{n}.partial" for n in (1, 2, 3)]
    with written.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with replacing(tmp_path / "one") as one:
            one.write(b"1")
        assert names(tmp_path) == sorted([written.name, "one", *kept, *special])
    with replacing(tmp_path / "two") as two:
        two.write(b"2")
    assert names(tmp_path) == sorted(["one", "two", *kept, *special])


def test_a_file_under_way_is_not_abandoned(tmp_path: Path):
    with replacing(tmp_path / "slow") as slow:
        slow.write(b"slow")
        with replacing(tmp_path / "quick") as quick:
            quick.write(b"quick")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"slow": b"slow", "quick": b"quick"}


def test_a_file_is_locked_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rename, tried = Path.replace, []

    def looked_at(self: Path, target: Path) -> Path:
        with self.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert len(tried) == 1


@pytest.mark.parametrize("race", ["locked", "removed"])
def test_a_file_that_was_taken_for_abandoned_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, race: str):
    lock, taken = fcntl.flock, []

    def late(fd: int, flags: int) -> None:
        if not taken:
            taken.extend(tmp_path.glob(".miniinfer-*"))
            if race == "locked":
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has it")
            taken[0].unlink()
        lock(fd, flags)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert len(taken) == 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new"}


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(fd: int, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".miniinfer-01.partial").write_bytes(b"perhaps somebody writes it")
    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert names(tmp_path) == [".miniinfer-01.partial", "a"]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_after_an_error_the_old_file_is_there_alone(tmp_path: Path, error: BaseException, durable: bool):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path, durable=durable) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.parametrize(
    ("code", "told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True)]
)
def test_a_folder_that_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: bool):
    path, sync = tmp_path / "a", os.fsync
    path.write_bytes(b"old")

    def refuse(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, os.strerror(code))
        sync(fd)

    def write() -> None:
        with replacing(path) as file:
            file.write(b"new")

    monkeypatch.setattr(module.os, "fsync", refuse)
    if told:
        with pytest.raises(NotDurable, match=re.escape(f"[Errno {code}] {os.strerror(code)}: '{path}'")) as raised:
            write()
        error = unwritable(raised.value, path)
        said = f"{path}: is written, but may not last through a power failure: {os.strerror(code)}"
        assert (
            str(error) == f"{said}\n  hint: its folder could not be synced to the disk; look at the file system, and run it again"
        )
        assert error.exit_code == (6 if code == errno.ENOSPC else 2)
    else:
        write()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new"}


def test_a_folder_that_takes_files_but_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = os.open

    def refuse(path, flags, *mode):
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(module.os, "open", refuse)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_what_takes_no_new_file_is_told_beforehand(tmp_path: Path):
    expect_writable(tmp_path / "a")
    (tmp_path / "file").write_bytes(b"")
    for place, error in ((tmp_path / "absent" / "a", FileNotFoundError), (tmp_path / "file" / "a", NotADirectoryError)):
        with pytest.raises(error):
            expect_writable(place)
    with pytest.raises(OSError, match="/proc/"):
        expect_writable(Path("/proc/a"))
    assert names(tmp_path) == ["file"]
