"""Pipes in the place of files."""

import os
import threading
from pathlib import Path

import pytest

from miniinfer_cli import pipes
from miniinfer_cli.pipes import pipe_contents


@pytest.mark.parametrize("contents", [b"", b"x", bytes(range(256)) * 1000])
def test_a_pipe_is_read_to_its_end(tmp_path, contents):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(contents))
    writer.start()
    assert pipe_contents(tmp_path / "pipe") == contents
    writer.join()


def test_a_writer_may_take_its_time(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    writing = os.open(tmp_path / "pipe", os.O_RDWR)
    set_blocking = os.set_blocking

    def write_at_last(fd: int, blocking: bool) -> None:
        set_blocking(fd, blocking)
        os.write(writing, b"contents")
        os.close(writing)

    monkeypatch.setattr(pipes, "_WAIT_S", 0)
    monkeypatch.setattr(os, "set_blocking", write_at_last)
    assert pipe_contents(tmp_path / "pipe") == b"contents"


def test_an_open_pipe_by_its_descriptor():
    reading, writing = os.pipe()
    os.write(writing, b"contents")
    os.close(writing)
    assert pipe_contents(Path(f"/dev/fd/{reading}")) == b"contents"
    os.close(reading)


def test_what_is_no_pipe(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    assert pipe_contents(tmp_path / "file") is None
    assert pipe_contents(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        pipe_contents(tmp_path / "absent")
    with pytest.raises(OSError, match="neither a file nor a pipe"):
        pipe_contents(Path("/dev/zero"))
    monkeypatch.setattr(pipes, "_WAIT_S", 0.01)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TimeoutError, match=r"nobody opened this pipe for writing within 0.01 s"):
        pipe_contents(tmp_path / "pipe")
