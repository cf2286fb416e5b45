"""All GPUs of the host at once: weights copied from one to the others, graphs of each, requests shared out.

On a machine with one GPU these run on that one.
"""

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from engine_format import read_plan, write_plan
from miniinfer_cli import Batcher
from miniinfer_cli.cli.main import main
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.several import device_names, open_beside
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from tests.gpu.plans import sizes_of, small

WAIT_S = 60


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "resnet50.plan"
    write_plan(small("resnet50"), path)
    return path


def batch_of(engine: Engine, rows: int, seed: int = 0) -> dict[str, Any]:
    shapes = {b.name: sizes_of(b, rows) for b in engine.inputs}
    return random_inputs(engine.inputs, engine.ranges, shapes, {}, seed)


def test_each_gpu_gives_what_the_first_gives(path: Path) -> None:
    names = device_names("cuda:all")
    with read_plan(path) as plan, load(plan, "cuda:0") as engine, contextlib.ExitStack() as stack:
        others = open_beside(engine, names, stack)
        assert list(names[1:]) == sorted(others)
        inputs = batch_of(engine, 3)
        for _ in range(4):  # as launches, captured, replayed
            expected = engine.run(inputs)
            for other in others.values():
                for name, value in other.run(inputs).items():
                    np.testing.assert_array_equal(value, expected[name])
        for other in others.values():
            weights = other.stats()["weights"]
            assert (weights["copied_from"], weights["nbytes"]) == ("cuda:0", engine.stats()["weights"]["nbytes"])
            assert other.stats()["cuda_graphs"]["captures"] > 0


def test_requests_are_shared_out_and_each_has_its_own_result(path: Path) -> None:
    names = device_names("cuda:all")
    with miniinfer_cli.load(path, "cuda:0") as engine, Batcher(engine, 4, 1, devices="cuda:all") as batcher:
        requests = [batch_of(engine, 1, seed) for seed in range(16)]
        batcher.warm_up(requests[0])
        alone = [engine.run(request) for request in requests]
        futures = [batcher.submit(requests[n % 16]) for n in range(400)]
        for number, future in enumerate(futures):
            for name, value in future.result(WAIT_S).items():
                np.testing.assert_allclose(value, alone[number % 16][name], rtol=2e-2, atol=2e-3)
        devices = batcher.stats()["devices"]
        assert list(devices) == list(names)
        assert sum(d["rows"] for d in devices.values()) == 400
        assert all(d["rows"] >= 400 / len(names) / 4 for d in devices.values())


def test_an_engine_on_the_last_gpu_travels(path: Path) -> None:
    last = device_names("cuda:all")[-1]
    with miniinfer_cli.load(path, last) as engine, pickle.loads(pickle.dumps(engine)) as other:
        assert other.device == last
        inputs = batch_of(engine, 2)
        for name, value in other.run(inputs).items():
            np.testing.assert_array_equal(value, engine.run(inputs)[name])


def test_run_tells_of_each(path: Path, tmp_path: Path) -> None:
    names = device_names("cuda:all")
    flags = ["--device", "cuda:all", "--iterations", "20", "--duration", "0", "--warmup", "0", "--json", str(tmp_path / "s.json")]
    with pytest.raises(SystemExit) as ended:
        main(["run", str(path), *flags])
    assert not ended.value.code
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["device"] == ",".join(names)
    assert [d["device"] for d in found.get("devices", [{"device": "cuda:0"}])] == list(names)
