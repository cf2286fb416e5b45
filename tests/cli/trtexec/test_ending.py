"""However a run ends, its last line and its exit code say the same."""

import signal

import pytest

from miniinfer_cli.cli.interruption import Terminated
from miniinfer_cli.cli.trtexec import command
from miniinfer_cli.cli.trtexec.script import main


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "miniinfer: interrupted"),
        (Terminated(), 143, ""),
        (MemoryError(), 1, "[E] this machine's memory ran out"),
        (ValueError("a bug"), 1, "[E] this is a bug in miniinfer"),
    ],
)
def test_faults(miniinfer, monkeypatch, error, code, told):
    def fail(*arguments):
        if isinstance(error, Terminated):
            signal.raise_signal(signal.SIGTERM)
        raise error

    monkeypatch.setattr(command, "run", fail)
    outcome = miniinfer("trtexec", "--onnx=m.onnx")
    assert outcome.code == code
    assert outcome.out.splitlines()[-1].startswith("&&&& FAILED TensorRT.trtexec [TensorRT v101600] [b0] #")
    assert told in outcome.err
    assert ("Traceback" in outcome.err) == isinstance(error, ValueError)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--help", "--onnx=m.onnx"]])
def test_help_is_no_failure(miniinfer, words):
    outcome = miniinfer("trtexec", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1].startswith("&&&& PASSED TensorRT.trtexec")
    for flag in ("--saveEngine=FILE", "--workspace", "--useDLACore", "--exportSummary=FILE"):
        assert flag in outcome.out


def test_names_cannot_begin_a_line(miniinfer):
    outcome = miniinfer("trtexec", "--onnx=m\n&&&& PASSED TensorRT.trtexec.onnx")
    assert outcome.code == 1
    assert [line[:11] for line in outcome.out.splitlines() if line.startswith("&&&&")] == ["&&&& RUNNIN", "&&&& FAILED"]
    assert "PASSED" not in {line[5:11] for line in (outcome.out + outcome.err).splitlines()}


def test_the_script_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["miniinfer-trtexec", "--frobnicate"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "# miniinfer trtexec --frobnicate\n" in capsys.readouterr().out
