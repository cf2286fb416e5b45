"""``miniinfer trtexec`` on a GPU: what it is, and times that are those of ``miniinfer run``."""

import json
import re
from pathlib import Path

import pytest

import miniinfer_cli
from miniinfer_cli.cli.main import main


def ends_well(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(w) for w in words])
    assert not ended.value.code


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    miniinfer_cli.build("sample_models/digits.onnx", tmp_path / "digits.plan")
    return tmp_path / "digits.plan"


def test_the_device_is_told(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends_well("trtexec", f"--loadEngine={plan}", "--device=0", "--iterations=3", "--duration=0", "--warmUp=0")
    said = capsys.readouterr().out
    for row in (
        r"Selected Device: \S.*", "Selected Device ID: 0", r"Selected Device UUID: GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        r"Compute Capability: \d+\.\d", r"SMs: [1-9]\d*", r"Device Global Memory: [1-9]\d+ MiB",
        r"Shared Memory per SM: [1-9]\d+ KiB", r"Memory Bus Width: [1-9]\d+ bits",
        r"Application Compute Clock Rate: \d\.?\d* GHz", r"Application Memory Clock Rate: \d\.?\d* GHz",
    ):  # fmt: skip
        assert re.search(rf"(?m)\[I\] {row}$", said), row


def test_points_in_time_and_durations_agree(plan: Path, tmp_path: Path) -> None:
    times, summary = tmp_path / "t.json", tmp_path / "s.json"
    flags = (
        f"--exportTimes={times}",
        f"--exportSummary={summary}",
        "--iterations=200",
        "--duration=0",
        "--shapes=image:64x1x8x8",
    )
    ends_well("trtexec", f"--loadEngine={plan}", "--device=0", *flags)
    found, told = json.loads(times.read_text()), json.loads(summary.read_text())
    assert len(found) == 200 and min(one["computeMs"] for one in found) == told["gpu_compute_time_ms"]["min"] > 0
    assert told["h2d_latency_ms"]["min"] > 0 and told["d2h_latency_ms"]["min"] > 0 and told["enqueue_time_ms"]["min"] > 0
    assert sum(one["startH2dMs"] < one["startEnqMs"] for one in found) <= 4, "a phase begins before its call at most by a jitter"


@pytest.mark.alone
def test_computing_takes_what_it_takes_in_run(plan: Path, tmp_path: Path) -> None:
    medians: dict[str, list[float]] = {"trtexec": [], "run": []}
    for _ in range(5):
        ends_well(
            "trtexec", f"--loadEngine={plan}", "--device=0", "--useCudaGraph", "--duration=0", "--iterations=2000",
            "--shapes=image:64x1x8x8", f"--exportSummary={tmp_path / 'trtexec.json'}",
        )  # fmt: skip
        ends_well(
            "run", plan, "--device", "cuda:0", "--duration", 0, "--iterations", 2000, "--shapes", "image:64x1x8x8", "-q",
            "--json", tmp_path / "run.json",
        )  # fmt: skip
        for name, found in medians.items():
            found.append(json.loads((tmp_path / f"{name}.json").read_text())["gpu_compute_time_ms"]["median"])
    assert min(medians["trtexec"]) == pytest.approx(min(medians["run"]), rel=0.05)
