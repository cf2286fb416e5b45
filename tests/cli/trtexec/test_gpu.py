"""``trtexec`` on a GPU (the emulated one): the rows of copies and of enqueuing, points in time, and layers."""

import json
from unittest import mock

import pytest

from miniinfer_cli.cli.trtexec import running
from miniinfer_cli.devices import opening
from tests.cli.trtexec import readers
from tests.cli.trtexec.readers import SECONDS, six_digits
from tests.emulation.engine import load_emulated


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch):
    monkeypatch.setattr(running, "rows_of", lambda device: {"Selected Device": "emulated", "Compute Capability": "9.0"})
    with mock.patch.object(opening, "load_model", load_emulated()):
        yield


def run(miniinfer, plan, tmp_path, *flags):
    summary = tmp_path / "s.json"
    outcome = miniinfer("trtexec", f"--loadEngine={plan}", f"--exportSummary={summary}", "--device=0", *flags, *SECONDS)
    assert outcome.code == 0, outcome.err
    return outcome.out, json.loads(summary.read_text())


def test_rows_are_those_of_the_device(miniinfer, plan, tmp_path):
    times = tmp_path / "t.json"
    out, told = run(miniinfer, plan, tmp_path, "--iterations=6", "--avgRuns=3", f"--exportTimes={times}")
    assert "[I] Selected Device: emulated" in out and "[I] Compute Capability: 9.0" in out
    result = told["result"]
    for key in ("latency_ms", "enqueue_time_ms", "h2d_latency_ms", "gpu_compute_time_ms", "d2h_latency_ms"):
        assert told[key] == result[key] and told[key]["min"] > 0
    assert readers.row(out, "Enqueue Time")["median"] == six_digits(result["enqueue_time_ms"]["median"])
    for one in json.loads(times.read_text()):
        assert one["latencyMs"] == pytest.approx(one["h2dMs"] + one["computeMs"] + one["d2hMs"])
        assert one["endEnqMs"] - one["startEnqMs"] == pytest.approx(result["enqueue_time_ms"]["mean"])
        assert one["endD2hMs"] - one["startH2dMs"] == pytest.approx(one["latencyMs"])
    assert result["settings"]["cuda_graph"] is False and result["settings"]["scheduling"] == "auto"
    (shown,) = {line.partition("(enqueue ")[2] for line in readers.prefixed(out) if line.startswith("Average on 3 runs")}
    assert shown == f"{result['enqueue_time_ms']['mean']:.6g} ms)"


def test_flags_reach_the_device(miniinfer, plan, tmp_path):
    flags = ("--useCudaGraph", "--useSpinWait", "--noDataTransfers", "--exposeDMA", "--infStreams=2", "--iterations=2")
    out, told = run(miniinfer, plan, tmp_path, *flags)
    settings = told["result"]["settings"]
    assert [settings[key] for key in ("cuda_graph", "scheduling", "data_transfers", "overlap", "streams")] == [
        *(True, "spin", False, False, 2),
    ]
    assert set(readers.row(out, "H2D Latency").values()) == set(readers.row(out, "D2H Latency").values()) == {0}
    assert told["latency_ms"] == told["gpu_compute_time_ms"]


def test_layers_have_the_same_names_in_both_files(miniinfer, plan, tmp_path):
    profile, layers = tmp_path / "p.json", tmp_path / "l.json"
    run(miniinfer, plan, tmp_path, f"--exportProfile={profile}", f"--exportLayerInfo={layers}", "--iterations=2")
    described = json.loads(layers.read_text())["Layers"]
    assert [one["Name"] for one in described] == [one["name"] for one in json.loads(profile.read_text())[1:]]
    assert all(one["TacticName"] and one["Inputs"] and one["Outputs"] for one in described)


@pytest.mark.parametrize("contents", [None, b"a cache of TensorRT's"])
def test_a_timing_cache_that_is_none_of_ours_is_left_aside(miniinfer, plan, tmp_path, contents):
    cache = tmp_path / "timing.cache"
    if contents is not None:
        cache.write_bytes(contents)
    outcome = miniinfer("trtexec", f"--loadEngine={plan}", f"--timingCacheFile={cache}", "--iterations=1", *SECONDS)
    assert outcome.code == 0, outcome.err
    assert f"[W] --timingCacheFile={cache} " in outcome.err
    assert (cache.read_bytes() if cache.exists() else None) == contents
