"""What profile says of layers: beside ceilings that are measured once, where an inference goes, and every round as a file."""

import json
from typing import Any

import pytest

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.backends.cpu import ceilings
from miniinfer_cli.cli import layering
from miniinfer_cli.errors import OutOfMemoryError

QUICK = ("--iterations", 3, "--warmup", 0, "--duration", 0)
BEST = ["%", "of", "best", "bound", "by"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[str]:
    """A cache folder of the test's own; gives for each time that the CPU is measured what it is called."""
    told: list[str] = []

    def measure(identity: str, threads: int, tell: Any) -> Ceilings:
        tell("products, f32")
        told.append(identity)
        return Ceilings(identity, {"matrix f32": 1.0, "vector f32": 1.0}, memory_gbps=1e9, threads=threads)

    monkeypatch.setenv("MINIINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ceilings, "measure_ceilings", measure)
    return told


def head_of(outcome: Any) -> list[str]:
    lines = outcome.out.splitlines()
    words: list[str] = lines[lines.index("=== Time by node ===") + 1].split()
    return words


def test_the_device_is_measured_once(miniinfer, plan, measured):
    line = "Measuring what cpu can do at best (once, and kept; --no-ceilings leaves it out)"
    first = miniinfer("profile", plan, *QUICK)
    assert line in first.out.splitlines() and head_of(first)[6:11] == BEST
    second = miniinfer("profile", plan, *QUICK, "--json", "-")
    document = json.loads(second.out)
    assert document["ceilings"]["device"] == measured[0] and len(measured) == 1
    for node in document["nodes"]:
        assert node["roofline"]["compute_ms"] == pytest.approx(node["flops"] / 1e12 * 1e3)
        assert node["roofline"]["fraction"] == pytest.approx(node["roofline"]["compute_ms"] / node["median_ms"])
        assert (node["roofline"]["bound_by"], node["rate"]) == ("compute", "matrix f32")
    assert sum(n["share"] for n in document["nodes"]) == pytest.approx(1)
    miniinfer("profile", plan, *QUICK, "--threads", 3)
    assert len(measured) == 2, "with another number of threads it is another device"


def test_ceilings_that_a_layer_is_beyond_are_measured_again(miniinfer, plan, monkeypatch, tmp_path):
    """Those of before were measured beside other work: the better of both are kept, and nobody measures a third time."""
    told: list[Ceilings] = []

    def measure(identity: str, threads: int, tell: Any) -> Ceilings:
        slow = {"matrix f32": 1e-9, "vector f32": 1e-9} if not told else {"matrix f32": 1.0, "vector f32": 1.0}
        told.append(Ceilings(identity, slow, memory_gbps=1e9 / (1 + len(told)), step_us=1.0 + len(told), threads=threads))
        return told[-1]

    monkeypatch.setenv("MINIINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ceilings, "measure_ceilings", measure)
    monkeypatch.setattr(layering, "_LONG_MS", 0.0)
    line = "A layer is beyond what was measured as the best: the ceilings are measured again"
    assert line in miniinfer("profile", plan, *QUICK).out.splitlines() and len(told) == 2
    outcome = miniinfer("profile", plan, *QUICK, "--json", "-")
    found = json.loads(outcome.out)["ceilings"]
    assert len(told) == 2 and found["tflops"] == {"matrix f32": 1.0, "vector f32": 1.0}
    assert (found["memory_gbps"], found["step_us"]) == (1e9, 1.0), "each figure is the better of both"


def test_without_ceilings_nothing_is_compared(miniinfer, plan, measured):
    outcome = miniinfer("profile", plan, *QUICK, "--no-ceilings")
    assert (outcome.code, measured) == (0, []) and "Measuring" not in outcome.out
    assert head_of(outcome) == ["node", "of", "operation", "how", "GB/s", "GFLOP/s", "gap", "us", "median", "ms", "%"]
    document = json.loads(miniinfer("profile", plan, *QUICK, "--no-ceilings", "--json", "-").out)
    assert document["ceilings"] is None and all(n["roofline"] is None for n in document["nodes"])


def test_without_a_folder_it_is_measured_each_time(miniinfer, plan, measured, monkeypatch):
    monkeypatch.setenv("MINIINFER_CACHE", "")
    for _ in range(2):
        assert "(each time: there is no cache folder (MINIINFER_CACHE);" in miniinfer("profile", plan, *QUICK).out
    assert len(measured) == 2


def test_a_device_that_cannot_be_measured_is_noted(miniinfer, plan, measured, monkeypatch):
    def failing(*_: Any) -> Ceilings:
        raise OutOfMemoryError("no room")

    monkeypatch.setattr(ceilings, "measure_ceilings", failing)
    outcome = miniinfer("profile", plan, *QUICK)
    assert outcome.code == 0 and "note: the ceilings of cpu could not be measured: no room" in outcome.out.splitlines()
    assert head_of(outcome)[6:11] != BEST


def test_it_is_told_where_an_inference_goes(miniinfer, plan, measured):
    lines = miniinfer("profile", plan, *QUICK).out.splitlines()
    start = lines.index("=== Where an inference goes ===")
    end = next(i for i, line in enumerate(lines) if line.startswith("The whole: "))
    assert lines[start + 1].split() == ["part", "median", "ms", "%"]
    parts = {words[0]: float(words[1]) for words in map(str.split, lines[start + 2 : end])}
    assert list(parts) == ["layers", "gaps", "unexplained", "synchronization"]
    assert sum(parts.values()) == pytest.approx(float(lines[end].split()[2]), abs=3e-4)
    assert lines[end].endswith("median of 3 that were waited for; nodes by the host's clock")


def test_rounds_go_to_standard_output_alone(miniinfer, plan, measured):
    document = json.loads(miniinfer("profile", plan, *QUICK, "--export-profile", "-").out)
    assert document["kind"] == "layers" and all(len(n["times_ms"]) == 3 for n in document["nodes"])
    assert all(min(n["times_ms"]) == pytest.approx(n["min_ms"]) for n in document["nodes"])


@pytest.mark.parametrize(
    ("flags", "what"),
    [(("--streams", "1,2"), "a sweep times"), (("--qps", 5), "requests under load time")],
    ids=["sweep", "load"],
)
def test_several_settings_have_no_layers(miniinfer, plan, tmp_path, flags, what):
    outcome = miniinfer("profile", plan, *QUICK, *flags, "--export-profile", tmp_path / "l.json")
    assert (outcome.code, outcome.out) == (2, "")
    hint = "give one setting, and neither --qps nor --scenario"
    assert outcome.err == f"miniinfer: error: --export-profile: {what} no layers\n  hint: {hint}\n"
