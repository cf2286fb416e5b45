"""``run`` and ``profile`` on a GPU (the emulated one): what they print besides what they print on a CPU."""

import json
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

import miniinfer_cli
from engine_format import write_plan
from miniinfer_cli.backends.cuda.contract.cubin import Resources
from miniinfer_cli.backends.cuda.contract.steps import Kernel
from miniinfer_cli.devices import opening
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.planning.freeze import freeze
from tests.emulation.device import EmulatedFunctions, EmulatedKernel
from tests.emulation.engine import load_emulated
from tests.graph_text import typed_graph

ROWS = ("Enqueue time:", "H2D latency:", "GPU compute time:", "D2H latency:", "Total GPU compute time:")


@pytest.fixture
def on_gpu() -> Any:
    with mock.patch.object(opening, "load_model", load_emulated()):
        yield


@pytest.fixture
def plan(tmp_path: Any) -> Any:
    path = tmp_path / "digits.plan"
    miniinfer_cli.build("sample_models/digits.onnx", path)
    return path


def test_run_prints_every_row(miniinfer: Any, plan: Any, on_gpu: Any) -> None:
    outcome = miniinfer("run", plan, "--device", "cuda:0", "--iterations", "5", "--duration", "0", "--warmup", "0")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert "Device: cuda:0" in lines
    assert "On a GPU: 6 steps, all on the device" in lines
    assert any(line.startswith("Weights: 10 tensors, ") and line.endswith("0 late copies") for line in lines)
    for row in ROWS:
        assert any(line.startswith(row) for line in lines), row


def test_without_transfers_there_are_no_rows_of_copies(miniinfer: Any, plan: Any, on_gpu: Any, tmp_path: Any) -> None:
    flags = ("--no-data-transfers", "--no-cuda-graph", "--no-overlap", "--iterations", "5", "--duration", "0")
    flags = (*flags, "--json", tmp_path / "s.json")
    outcome = miniinfer("run", plan, "--device", "cuda:0", *flags)
    assert outcome.code == 0
    assert "H2D latency" not in outcome.out
    summary = json.loads((tmp_path / "s.json").read_text())
    assert set(summary) >= {"enqueue_time_ms", "gpu_compute_time_ms", "gpu_state"}
    assert "h2d_latency_ms" not in summary


def test_profile_times_every_step_and_several_streams(miniinfer: Any, plan: Any, on_gpu: Any) -> None:
    outcome = miniinfer("profile", plan, "--device", "cuda:0", "--streams", "4", "--iterations", "3", "--duration", "0")
    assert outcome.code == 0
    assert "=== Time by node ===" in outcome.out
    assert outcome.out.count("miniinfer.FusedConv") == 3  # two nodes, and the operation
    assert "Inferences: 12 on 4 streams" in outcome.out
    assert "hint: 4 streams run at once" in outcome.out


def test_two_ways_of_waiting_exclude_each_other(miniinfer: Any, plan: Any) -> None:
    outcome = miniinfer("run", plan, "--spin-wait", "--blocking-sync")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--spin-wait and --blocking-sync exclude each other" in outcome.err


def test_kernels_that_use_local_memory_are_told(
    miniinfer: Any, plan: Any, on_gpu: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = EmulatedFunctions.get

    def spilling(self: EmulatedFunctions, kernel: Kernel, shared_nbytes: int = 0) -> EmulatedKernel:
        return replace(get(self, kernel, shared_nbytes), resources=Resources(255, 576, 64))

    monkeypatch.setattr(EmulatedFunctions, "get", spilling)
    outcome = profiled(miniinfer, plan, tmp_path / "a.json")
    node = next(n for n in json.loads((tmp_path / "a.json").read_text())["nodes"] if n["kernels"])
    kernel = node["kernels"][0]
    assert (kernel["registers"], kernel["local_bytes"], kernel["shared_bytes"] >= 64) == (255, 576, True)
    assert f"Local memory: 576 B a thread, by kernel {kernel['kernel']} of {node['node']}" in outcome.out.splitlines()


def profiled(miniinfer: Any, plan: Any, json_file: Any, *flags: str) -> Any:
    short = ("--iterations", "1", "--duration", "0", "--warmup", "0")
    return miniinfer("profile", plan, "--device", "cuda:0", *short, "--json", json_file, *flags)


def test_a_tactic_is_forced_and_shown(miniinfer: Any, plan: Any, on_gpu: Any, tmp_path: Any) -> None:
    outcome = profiled(miniinfer, plan, tmp_path / "a.json")
    product = next(n for n in json.loads((tmp_path / "a.json").read_text())["nodes"] if "gem" in n["tactic"])
    assert (product["chosen_by"], product["refused"]) == ("heuristic", [])
    assert product["flops"] > 0 and product["bytes"] > 0
    assert product["kernels"] and all((k["registers"], k["local_bytes"]) == (32, 0) for k in product["kernels"])
    assert "Local memory" not in outcome.out
    name = product["node"]
    outcome = profiled(miniinfer, plan, tmp_path / "b.json", "--tactic", f"{name}=gemm 128x128")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[lines.index("=== Time by node ===") + 1].split() == [
        "node",
        "of",
        "operation",
        "how",
        "chosen",
        "by",
        "GB/s",
        "GFLOP/s",
        "median",
        "ms",
        "%",
    ]
    assert any(line.split()[:1] == [name] and "forced" in line for line in lines)
    document = json.loads((tmp_path / "b.json").read_text())
    (forced,) = [n for n in document["nodes"] if n["node"] == name]
    assert (forced["tactic"], forced["chosen_by"]) == ("gemm 128x128", "forced")
    assert document["settings"]["tactics"] == {name: "gemm 128x128"}
    outcome = profiled(miniinfer, plan, tmp_path / "c.json", "--disable-tactic", product["tactic"].split()[0])
    document = json.loads((tmp_path / "c.json").read_text())
    (other,) = [n for n in document["nodes"] if n["node"] == name]
    assert other["tactic"].split()[0] != product["tactic"].split()[0]
    assert {"key": product["tactic"], "reason": "disabled"} in other["refused"]
    assert document["settings"]["disable_tactics"] == [product["tactic"].split()[0]]


def test_a_tactic_that_is_not_there_is_refused_with_those_that_are(miniinfer: Any, plan: Any, on_gpu: Any, tmp_path: Any) -> None:
    profiled(miniinfer, plan, tmp_path / "a.json")
    nodes = json.loads((tmp_path / "a.json").read_text())["nodes"]
    product = next(n for n in nodes if "gem" in n["tactic"])
    outcome = miniinfer("run", plan, "--device", "cuda:0", "--tactic", f"{product['node']}=warp")
    assert outcome.code == 2
    assert "there is no tactic 'warp'" in outcome.err and repr(product["node"]) in outcome.err
    assert "hint: what would do: " in outcome.err and product["tactic"] in outcome.err and "gemm 128x128" in outcome.err
    outcome = miniinfer("run", plan, "--device", "cuda:0", "--tactic", "nobody=gemm 64x64")
    assert outcome.code == 2
    assert "--tactic nobody=gemm 64x64: no step on the device has this name" in outcome.err and nodes[0]["node"] in outcome.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tactic", "node"), "'node' is not of the form NODE=KEY"),
        (("--tactic", "=key"), "'=key' is not of the form NODE=KEY"),
        (("--tactic", "a=x", "--tactic", "a=y"), "--tactic: node 'a' is given two tactics"),
    ],
)
def test_flags_of_tactics_that_say_nothing(miniinfer: Any, plan: Any, flags: Any, message: str) -> None:
    outcome = miniinfer("run", plan, *flags)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


JOINED = """
graph main(x: f32[2,1,1,24], v: f32[8,1,1,24], w: f32[24,1,1,8]) {
  a = miniinfer.ConvNHWC(x, v)
  b = Relu(a)
  c = miniinfer.ConvNHWC(b, w)
  d = Sigmoid(c)
  return d
}
"""


def test_a_join_is_told_with_its_nodes_and_forced_and_disabled(miniinfer: Any, on_gpu: Any, tmp_path: Any) -> None:
    graph, plan, report = typed_graph(JOINED), tmp_path / "joined.plan", tmp_path / "a.json"
    fuse_conv(graph)
    write_plan(freeze(graph), plan)
    outcome = profiled(miniinfer, plan, report)
    assert outcome.code == 0 and "excitation: slices of 32" in outcome.out
    (node,) = json.loads(report.read_text())["nodes"]
    join = {"key": "excitation", "chosen_by": "heuristic", "nodes": ["a", "c"], "tuned_us": None}
    assert (node["node"], node["tactic"], node["join"]) == ("a + c", "slices of 32", join)
    assert "excitation: slices of 32" in miniinfer("inspect", plan).out
    outcome = profiled(miniinfer, plan, report, "--tactic", "c=excitation")
    (node,) = json.loads(report.read_text())["nodes"]
    assert node["join"] == join | {"chosen_by": "forced"} and "forced, heuristic" in outcome.out
    profiled(miniinfer, plan, report, "--disable-tactic", "excitation")
    nodes = json.loads(report.read_text())["nodes"]
    assert [(n["node"], n["join"]) for n in nodes] == [("a", None), ("c", None)]
    outcome = miniinfer("run", plan, "--device", "cuda:0", "--disable-tactic", "excitation", "--tactic", "a=excitation")
    assert outcome.code == 2 and "node 'a': tactic 'excitation' cannot be taken: disabled" in outcome.err
    outcome = miniinfer("run", plan, "--device", "cuda:0", "--tactic", "a=excite")
    assert outcome.code == 2 and outcome.err.rstrip().endswith(", excitation")
