"""What run and profile write as JSON: it says what was measured, and is what docs/results.md promises."""

import copy
import functools
import json
import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from unittest import mock

import jsonschema
import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.cli.report import RESULTS_VERSION
from miniinfer_cli.devices import opening
from miniinfer_cli.devices.machine import host_facts, versions
from tests.emulation.engine import load_emulated

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
SCHEMA = json.loads((resources.files("miniinfer_cli.cli") / "results.schema.json").read_text())
LOOSE = jsonschema.Draft202012Validator(SCHEMA)
QUICK = ("--iterations", 3, "--warmup", 0, "--duration", 0)


@functools.cache
def strict(kind):
    """What checks one kind of document by a schema that takes no key that it does not name."""
    closed = copy.deepcopy(SCHEMA)

    def close(part):
        if isinstance(part, dict):
            if "properties" in part and "additionalProperties" not in part:
                part["additionalProperties"] = False
            for inner in part.values():
                close(inner)

    joined = closed["$defs"][kind]
    for other in joined.pop("allOf"):
        base = closed["$defs"][other["$ref"].rpartition("/")[2]]
        joined["properties"] = {**base["properties"], **joined["properties"]}
        joined["required"] = [*base["required"], *joined["required"]]
    close(closed["$defs"])
    return jsonschema.Draft202012Validator({**joined, "$defs": closed["$defs"]})


def check(document):
    LOOSE.validate(document)  # as docs/results.md shows it
    strict(document["kind"]).validate(document)
    return document


@pytest.fixture(params=["cpu", "cuda:0"])
def device(request):
    if request.param == "cpu":
        yield "cpu"
    else:
        with mock.patch.object(opening, "load_model", load_emulated()):
            yield "cuda:0"


def test_the_page_and_the_package_have_one_schema():
    (block,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    assert json.loads(block) == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["identity"]["properties"]["schema_version"] == {"const": RESULTS_VERSION}
    assert SCHEMA["$id"].endswith(f":{RESULTS_VERSION}")


def test_run_says_what_it_ran(miniinfer, plan, tmp_path, device):
    np.save(tmp_path / "x.npy", np.ones((6, 4), np.float32))
    flags = ("--device", device, "--input", f"x={tmp_path / 'x.npy'}", "--streams", 2, "--seed", 7, "--percentile", "50,99.5")
    times = tmp_path / "times.json"
    before = datetime.now(UTC).replace(microsecond=0)
    document = check(json.loads(miniinfer("run", plan, *QUICK, *flags, "--json", "-", "--export-times", times).out))
    assert before <= datetime.fromisoformat(document["date"]) <= datetime.now(UTC)
    assert document["plan_digest"] == json.loads(miniinfer("inspect", plan, "--json", "-").out)["digest"]
    assert (document["kind"], document["device"], document["batch"]) == ("run", device, 6)
    assert document["inputs"] == [{"name": "x", "type": "f32[batch,4]", "shape": [6, 4], "source": str(tmp_path / "x.npy")}]
    assert document["outputs"] == [{"name": "y", "type": "f32[batch,3]", "shape": ["batch", 3]}]
    assert document["versions"]["miniinfer"] == miniinfer_cli.__version__
    settings = document["settings"]
    assert (settings["iterations"], settings["streams"], settings["seed"], settings["percentiles"]) == (3, 2, 7, [50, 99.5])
    assert list(document["latency_ms"]) == ["min", "max", "mean", "median", "p50", "p99.5"]
    exported = check(json.loads(times.read_text()))
    assert exported["kind"] == "times"
    same = SCHEMA["$defs"]["identity"]["required"]
    assert {k: exported[k] for k in same} == {k: document[k] for k in same}
    assert len(exported["inferences"]) == document["iterations"] == 6
    assert document["device_facts"]["name"] == ("cpu" if device == "cpu" else "emulated")
    assert ("compute_ms" in exported["inferences"][0], "gpu_compute_time_ms" in document) == ((device != "cpu",) * 2)


def test_profile_says_what_it_ran(miniinfer, plan, device, tmp_path):
    flags = ("--device", device, "--shapes", "x:5x4", "--no-data-transfers", "--top", 1)
    layers = tmp_path / "layers.json"
    document = check(json.loads(miniinfer("profile", plan, *QUICK, *flags, "--json", "-", "--export-profile", layers).out))
    assert (document["kind"], document["settings"]["shapes"], document["inputs"][0]["shape"]) == (
        "profile",
        {"x": [5, 4]},
        [5, 4],
    )
    exported = check(json.loads(layers.read_text()))
    assert exported["kind"] == "layers" and all(exported[k] == document[k] for k in ("account", "ceilings", "plan_digest"))
    assert [{**n, "times_ms": None} for n in exported["nodes"]] == [{**n, "times_ms": None} for n in document["nodes"]]
    assert [len(n["times_ms"]) for n in exported["nodes"]] == [3, 3]
    parts = [ms for key, ms in document["account"].items() if key.endswith("_ms") and key != "whole_ms"]
    assert sum(parts) == pytest.approx(document["account"]["whole_ms"])
    assert (document["ceilings"] is None) == (device != "cpu"), "the emulated device has none"
    assert (document["inputs"][0]["source"], document["settings"]["data_transfers"]) == ("random", False)
    assert [n["operation"] for n in document["nodes"]] == ["miniinfer.FusedMatMul", "MatMul"]


def test_the_strict_schema_knows_every_key(miniinfer, plan):
    document = json.loads(miniinfer("run", plan, *QUICK, "--json", "-").out)
    for broken in (
        {k: v for k, v in document.items() if k != "plan_digest"},
        {**document, "schema_version": 2},
        {**document, "more": 1},
        {**document, "settings": {**document["settings"], "more": 1}},
        {**document, "kind": "times"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check(broken)


def test_the_host_names_what_bears_on_speed():
    facts = host_facts({"OMP_NUM_THREADS": "3", "SECRET": "no"})
    assert facts["environment"] == {"OMP_NUM_THREADS": "3"}
    assert facts["cores"] >= 1 and facts["processor"] and facts["system"]
    assert list(versions("cpu")) == ["python", "numpy"]
    assert set(versions("cuda:0")) > set(versions("cpu"))


def test_a_forced_tactic_is_refused_on_a_cpu(miniinfer, plan):
    for command in ("run", "profile"):
        outcome = miniinfer(command, plan, *QUICK, "-q", "--device", "cpu", "--tactic", "hidden=gemm")
        assert outcome.code == 2
        assert "--tactic: 'hidden' cannot be done by 'gemm': on a CPU there are no tactics" in outcome.err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--no-cuda-graph",), "--no-cuda-graph changes"),
        (("--spin-wait", "--no-overlap"), "--no-overlap, --spin-wait change"),
        (("--no-pdl",), "--no-pdl changes"),
        (("--no-data-transfers", "--nvtx", "--blocking-sync"), "--blocking-sync, --nvtx, --no-data-transfers change"),
    ],
)
def test_flags_of_a_gpu_are_noted_on_a_cpu(miniinfer, plan, flags, named):
    for command in ("run", "profile"):
        outcome = miniinfer(command, plan, *QUICK, "--device", "cpu", *flags)
        assert outcome.code == 0
        assert f"note: {named} nothing on a CPU" in outcome.out.splitlines()
    with mock.patch.object(opening, "load_model", load_emulated()):
        assert "note:" not in miniinfer("run", plan, *QUICK, *flags).out
    assert "note:" not in miniinfer("run", plan, *QUICK, "--device", "cpu").out


def test_the_threads_of_a_cpu_are_told(miniinfer, plan, monkeypatch):
    monkeypatch.setenv("MINIINFER_NUM_THREADS", "2")
    for flags, asked, count in (((), None, 2), (("--threads", 3), 3, 3)):
        for command in ("run", "profile"):
            outcome = miniinfer(command, plan, *QUICK, "--device", "cpu", *flags)
            assert f"Threads of each stream: {count}" in outcome.out.splitlines()
            document = check(json.loads(miniinfer(command, plan, *QUICK, "--device", "cpu", *flags, "--json", "-").out))
            assert (document["settings"]["threads"], document["device_facts"]["threads"]) == (asked, count)
            assert document["host"]["environment"]["MINIINFER_NUM_THREADS"] == "2"
    with mock.patch.object(opening, "load_model", load_emulated()):
        outcome = miniinfer("run", plan, *QUICK, "--threads", 2)
    assert "note: --threads changes nothing on a GPU" in outcome.out.splitlines()
    assert "Threads of each stream" not in outcome.out


@pytest.mark.parametrize("threads", ["0", "-1", "1025", "two"])
def test_a_wrong_number_of_threads(miniinfer, plan, threads):
    outcome = miniinfer("run", plan, *QUICK, "--device", "cpu", "--threads", threads)
    assert outcome.code == 2
    assert "--threads" in outcome.err


def test_a_wrong_number_of_threads_in_the_environment(miniinfer, plan, monkeypatch):
    monkeypatch.setenv("MINIINFER_NUM_THREADS", "all")
    outcome = miniinfer("run", plan, *QUICK, "--device", "cpu")
    assert outcome.code == 2
    assert "MINIINFER_NUM_THREADS is no number of threads: expected 1 to 1024, got 'all'" in outcome.err


def test_an_empty_batch_gives_no_samples(miniinfer, plan):
    outcome = miniinfer("run", plan, *QUICK, "--shapes", "x:0x4")
    assert (outcome.code, "samples/s" in outcome.out) == (0, False)
    document = check(json.loads(miniinfer("run", plan, *QUICK, "--shapes", "x:0x4", "--json", "-").out))
    assert (document["batch"], document["samples_per_second"]) == (0, 0)
