"""Command lines of trtexec as people write them run, and those that cannot say why; the exit code is what the last line says."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.trtexec import readers


def read(name: str) -> list[str]:
    lines = (Path(__file__).parent / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


LINES = read("lines.txt")
REFUSED = [tuple([*line.split(" | "), ""][:3]) for line in read("refused.txt")]


def test_there_are_120_and_they_are_as_people_write_them():
    assert len(LINES) == len(set(LINES)) == 120
    share = {flag: sum(f"--{flag}" in line for line in LINES) / len(LINES) for flag in ("saveEngine", "fp16", "workspace")}
    assert share["saveEngine"] > 0.7 and share["fp16"] > 0.55 and share["workspace"] > 0.08


@pytest.mark.parametrize("line", LINES)
def test_it_runs_and_leaves_an_engine_and_figures(miniinfer, folder, made_up, line):
    words = shlex.split(line)
    outcome = miniinfer("trtexec", *words, "--exportSummary=summary.json")
    assert outcome.code == 0, outcome.err
    assert readers.passed(outcome.out)
    assert "[E]" not in outcome.err and "Traceback" not in outcome.err
    named = dict(word.lstrip("-").partition("=")[::2] for word in words)
    told = json.loads((folder / "summary.json").read_text())
    if "saveEngine" in named:
        assert told["engine"]["bytes"] == (folder / named["saveEngine"]).stat().st_size > 0
    skipped = not {"buildOnly", "skipInference", "timeDeserialize"}.isdisjoint(named)
    assert (told["result"] is None) == skipped == (not made_up)
    if skipped and "loadEngine" in named:
        assert f"Engine deserialized in {told['engine']['deserialize_s']:.6g} sec." in readers.prefixed(outcome.out)
    if not skipped:
        assert told["gpu_compute_time_ms"]["mean"] > 0
        assert made_up == [int(named.get("infStreams") or named.get("streams") or 1)]
        assert told["result"]["settings"]["iterations"] == int(named.get("iterations", 10))
        whole = "dumpProfile" not in named and "exportProfile" not in named
        assert ("Throughput: " in outcome.out) == (whole or "separateProfileRun" in named)
    for flag, value in named.items():
        if flag.startswith("export"):
            assert json.loads((folder / value).read_text())


@pytest.mark.parametrize(("line", "why", "way"), REFUSED)
def test_it_is_refused_with_the_reason_and_a_way_out(miniinfer, folder, made_up, line, why, way):
    outcome = miniinfer("trtexec", *shlex.split(line))
    assert outcome.code == 1
    first, *_, last = outcome.out.splitlines()
    tail = f"TensorRT.trtexec [TensorRT v101600] [b0] # miniinfer trtexec {' '.join(shlex.split(line))}"
    assert (first, last) == (f"&&&& RUNNING {tail}", f"&&&& FAILED {tail}")
    errors = re.findall(r"(?m)^\[\S+\] \[E\] (.*)$", outcome.err)
    assert why in errors[0], errors
    assert errors[-1].startswith("hint: ") and way in errors[-1], errors
    assert "Traceback" not in outcome.err and not made_up
    assert not (folder / "out.plan").exists()
