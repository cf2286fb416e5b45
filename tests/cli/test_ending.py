"""How a command ends: by its own verdict whoever reads, and cleaned up when it is interrupted."""

import importlib
import io
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import miniinfer_cli
from miniinfer_cli.cli.main import main
from miniinfer_cli.cli.streams import lasting_streams
from miniinfer_cli.verification import Verification

QUICK = ("--duration", "0", "--warmup", "0", "--iterations", "2", "--device", "cpu")


def exit_code(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in words])
    return int(ended.value.code or 0)


def piped(reader: str, *words: object) -> int:
    """The exit code of the command whose standard output, and error, is a pipe: ``| true`` or ``| head -1``."""
    reading, writing = os.pipe()

    def read() -> None:
        with os.fdopen(reading) as file:
            if reader == "head -1":
                file.readline()

    thread = threading.Thread(target=read)
    thread.start()
    if reader == "true":
        thread.join()
    with (
        os.fdopen(writing, "w", buffering=1) as out,
        os.fdopen(writing, "w", buffering=1, closefd=False) as err,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = exit_code(*words)
    thread.join()
    return code


@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_a_reader_that_goes_away_changes_nothing(reader, model, plan, tmp_path):
    out = tmp_path / "out"
    for words, code in (
        (("--help",), 0),
        (("build", "-h"), 0),
        ((), 2),
        (("build", model, "-o", out, "--verify"), 0),
        (("build", model, "-o", out, "--json", "-"), 0),
        (("run", plan, *QUICK, "--json", out), 0),
        (("run", plan, *QUICK, "--json", "-", "--output", out), 0),
        (("run", plan, *QUICK, "--export-times", "-", "--json", out), 0),
        (("profile", plan, *QUICK, "--json", out), 0),
        (("profile", plan, *QUICK, "--json", "-"), 0),
        (("inspect", plan, "--graph", "--json", out), 0),
        (("inspect", model, "--json", "-"), 0),
        (("devices", "--json", out), 0),
        (("devices", "--json", "-"), 0),
        (("run", plan, "--frobnicate"), 2),
        (("run", tmp_path / "absent.plan"), 4),
    ):
        out.unlink(missing_ok=True)
        assert piped(reader, *words) == code, words
        assert out.exists() == (out in words), words


@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_a_check_that_fails_is_told_to_nobody_by_the_exit_code(reader, model, plan, monkeypatch, tmp_path):
    data = bytearray(plan.read_bytes())
    data[-1] ^= 1
    plan.write_bytes(data)
    assert piped(reader, "inspect", plan, "--check") == 1
    monkeypatch.setattr(Verification, "ok", property(lambda self: False))
    assert piped(reader, "build", model, "--verify", "--json", tmp_path / "s.json") == 1
    assert json.loads((tmp_path / "s.json").read_text())["verification"]["ok"] is False


def test_the_streams_are_given_back(monkeypatch):
    for unbuffered in (False, True):
        reading, writing = os.pipe()
        raw = os.fdopen(writing, "wb", buffering=0 if unbuffered else -1)
        stream = io.TextIOWrapper(raw, "ascii", write_through=unbuffered)
        monkeypatch.setattr(sys, "stdout", stream)
        with lasting_streams():
            assert sys.stdout is not stream
            sys.stdout.write("gr\xf6\xdfe")
            if unbuffered:
                assert os.read(reading, 100) == b"gr\\xf6\\xdfe"
        assert sys.stdout is stream
        if not unbuffered:
            assert os.read(reading, 100) == b"gr\\xf6\\xdfe"
        stream.close()
        os.close(reading)


INTERRUPTIONS = [(signal.SIGINT, 130, "miniinfer: interrupted"), (signal.SIGTERM, 143, "miniinfer: terminated")]


@pytest.mark.parametrize(("number", "code", "told"), INTERRUPTIONS)
@pytest.mark.parametrize("flag", ["-o", "--json", "--output", "--export-times"])
def test_an_interruption_while_a_file_is_written(miniinfer, model, plan, tmp_path, monkeypatch, flag, number, code, told):
    def interrupt(fd: int) -> None:
        os.kill(os.getpid(), number)

    (tmp_path / "out").write_bytes(b"old")
    names = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", interrupt)
    outcome = miniinfer(*(("build", model) if flag == "-o" else ("run", plan, *QUICK)), flag, tmp_path / "out")
    assert (outcome.code, outcome.err.strip()) == (code, told)
    assert (tmp_path / "out").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == names


@pytest.mark.parametrize(("number", "code", "told"), INTERRUPTIONS)
@pytest.mark.parametrize("becomes", [None, ImportError("numpy cannot be imported")])
def test_an_interruption_while_modules_are_imported(miniinfer, monkeypatch, number, code, told, becomes):
    def interrupted(name: str) -> None:
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            raise becomes or KeyboardInterrupt from None

    monkeypatch.setattr(importlib, "import_module", interrupted)
    outcome = miniinfer("devices")
    assert (outcome.code, outcome.err.strip()) == (code, told)


def test_only_the_command_line_handles_signals(miniinfer, model, monkeypatch):
    seen = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(n) for n in numbers]
    monkeypatch.setattr(importlib, "import_module", lambda name: seen.extend(signal.getsignal(n) for n in numbers))
    miniinfer("devices")
    monkeypatch.undo()
    assert all(now not in before for now in seen) and len(seen) == 2
    with miniinfer_cli.load(miniinfer_cli.build(str(model)), "cpu"):
        assert [signal.getsignal(n) for n in numbers] == before


def test_a_signal_that_is_ignored_stays_so(miniinfer, monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        monkeypatch.setattr(importlib, "import_module", lambda name: seen.append(signal.getsignal(signal.SIGTERM)))
        miniinfer("devices")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIG_IGN]


def test_the_command_line_runs_in_another_thread(plan, tmp_path):
    codes = []
    words = ("run", plan, *QUICK, "-q", "--json", tmp_path / "s.json")
    thread = threading.Thread(target=lambda: codes.append(exit_code(*words)))
    thread.start()
    thread.join()
    assert codes == [0]
    assert Path(tmp_path / "s.json").exists()
