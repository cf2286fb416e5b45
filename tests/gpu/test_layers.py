"""Layers on the device: their sum is the whole, events agree with the host's clock, and ceilings are what a GPU has."""

from typing import Any

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.backends.interface import TimedBy
from miniinfer_cli.devices.ceilings import device_of
from miniinfer_cli.measuring.account import LayerProfile, account_of
from miniinfer_cli.measuring.benchmark import Schedule
from miniinfer_cli.measuring.layers import layers_of
from miniinfer_cli.measuring.step_times import time_steps
from miniinfer_cli.runtime.engine import Engine
from tests.gpu.plans import sizes_of, small

pytestmark = pytest.mark.alone
THOUSAND = Schedule(40, 0, 60, transfers=False)


@pytest.fixture(scope="module")
def ceilings() -> Ceilings:
    with miniinfer_cli.load(small("simple_cnn"), "cuda:0", cache=None) as engine:
        stages: list[str] = []
        found = device_of(engine.device, engine.model.facts()).measured(None, stages.append)
    assert "matrix units, bf16" in stages
    return found


def arrays_for(engine: Engine, batch: int) -> list[Any]:
    """Images, or texts of 128 tokens."""
    random = np.random.default_rng(0)
    feeds = {}
    for b in engine.inputs:
        shape = sizes_of(b, batch)
        assert b.dtype is not None
        feeds[b.name] = (random.integers(0, 2, shape) if b.dtype.kind in "iu" else random.standard_normal(shape)).astype(b.dtype)
    checked: list[Any] = engine.check(feeds)
    return checked


def profiled(name: str, batch: int, ceilings: Ceilings, **options: Any) -> LayerProfile:
    with miniinfer_cli.load(small(name, "f16", small=False, seq=128), "cuda:0", cache=None, **options) as engine:
        arrays = arrays_for(engine, batch)
        rounds, whole = time_steps(engine, arrays, THOUSAND)
        layers = layers_of(engine.program(arrays), rounds, ceilings, weights_nbytes=engine.plan.weights_nbytes)
    account = account_of(layers, rounds[-1].way, whole)
    assert account.count == 1000
    print(f"\n{name} b{batch} {options or ''}: " + ", ".join(f"{part} {ms * 1e3:.1f} us" for part, ms in account.rows()))
    print(f"{len(layers)} layers, {account.whole_ms * 1e3:.1f} us")
    for one in sorted(layers, key=lambda layer: -layer.median_ms)[:3]:
        print(f"  {one.label}: {one.median_ms * 1e3:.1f} us, {one.efficiency or 0:.2f} of best, bound by {one.bound}")
    return LayerProfile(layers, rounds, account, ceilings)


def test_ceilings_are_a_gpus(ceilings: Ceilings) -> None:
    print(f"\n{ceilings}")
    rates = ceilings.tflops
    assert {f"matrix {n}" for n in ("bf16", "f16", "tf32", "f32", "f64", "i8")} | {"vector f32", "vector f64"} == set(rates)
    assert min(rates["matrix bf16"], rates["matrix f16"], rates["matrix i8"]) > rates["matrix tf32"] > rates["matrix f32"]
    assert rates["vector f32"] > 0.5 * rates["matrix f32"], "products of f32 are sums of the vector units"
    assert ceilings.cache_gbps is not None and ceilings.cache_gbps > ceilings.memory_gbps > 300
    assert ceilings.step_us is not None and 0.1 < ceilings.step_us < 5
    assert ceilings.graph_launch_us is not None and ceilings.graph_launch_and_wait_us is not None
    assert 0 < ceilings.graph_launch_us < ceilings.graph_launch_and_wait_us < 100
    assert ceilings.event_us is not None and 0.1 < ceilings.event_us < 10


@pytest.mark.parametrize("name", ["resnet50", "bert_base"])
def test_the_layers_make_up_the_whole(name: str, ceilings: Ceilings) -> None:
    profile = profiled(name, 64, ceilings)
    account = profile.account
    assert account.way is TimedBy.REPLAY
    assert abs(account.unexplained_ms) < 0.1 * account.compute_ms
    assert account.compute_ms <= account.whole_ms < 1.02 * account.compute_ms + 0.02, "events and the host's clock agree"
    known = [layer for layer in profile.layers if layer.efficiency is not None]
    spent = sum(layer.median_ms for layer in known)
    assert spent > 0.95 * account.layers_ms, "nearly all have an estimate"
    assert 0.1 < sum(layer.roofline.least_ms for layer in known if layer.roofline is not None) / spent < 1.05


def test_one_image_is_mostly_gaps_and_launches(ceilings: Ceilings) -> None:
    """What the host adds is within 2 % + 20 us in one of three times: it may have others to serve."""
    accounts = [profiled("resnet50", 1, ceilings).account for _ in range(3)]
    assert all(a.compute_ms <= a.whole_ms and a.gaps_ms > 0 for a in accounts)
    assert min(a.whole_ms - 1.02 * a.compute_ms for a in accounts) < 0.02


def test_without_graphs_the_device_waits_for_the_host(ceilings: Ceilings) -> None:
    account = profiled("resnet50", 1, ceilings, cuda_graph=False).account
    assert account.way is TimedBy.STREAM
    assert account.gaps_ms > 0.1 * account.layers_ms
