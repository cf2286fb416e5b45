"""Rows of a mask that hide all keys by a finite number, by cuDNN and by our kernel for sm_90a: the mean of the values."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.tactics.every_tactic import offered
from tests.graph_text import typed_graph

KEYS, QUERIES, HEADS, SIZE = 640, 96, 4, 64  # from 512 keys on a mask goes to the library
TYPES: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def _graph(dtype: str, mask: str) -> Graph:
    rows, keys = f"{HEADS},{QUERIES},{SIZE}", f"{HEADS},{KEYS},{SIZE}"
    inputs = f"q: {dtype}[2,{rows}], k: {dtype}[2,{keys}], v: {dtype}[2,{keys}], m: {mask}[2,1,{QUERIES},{KEYS}]"
    return typed_graph(f"graph main({inputs}) {{\n  y = Attention(q, k, v, m)\n  return y\n}}")


@pytest.mark.parametrize(
    ("dtype", "mask", "number"),
    [
        ("bf16", "bf16", float(ml_dtypes.finfo(ml_dtypes.bfloat16).min)),
        ("bf16", "bf16", -1e30),
        ("bf16", "bf16", -1e9),
        ("bf16", "f32", float(np.finfo(np.float32).min)),
        ("f16", "f16", float(np.finfo(np.float16).min)),
        ("f16", "f32", float(np.finfo(np.float32).min)),
        ("f16", "f32", -1e9),
        ("f16", "f32", -1e5),
    ],
)
def test_rows_hidden_by_a_finite_number(dtype: str, mask: str, number: float) -> None:
    rng = np.random.default_rng(0)
    added = np.zeros((2, 1, QUERIES, KEYS), np.float32)
    added[0, :, :40] = number  # wholly hidden, as padding on the left is
    added[1, :, 7, 100:] = number
    added[1, :, 9] = -np.inf
    feeds = {
        "q": rng.standard_normal((2, HEADS, QUERIES, SIZE)).astype(TYPES[dtype]),
        "k": rng.standard_normal((2, HEADS, KEYS, SIZE)).astype(TYPES[dtype]),
        "v": rng.standard_normal((2, HEADS, KEYS, SIZE)).astype(TYPES[dtype]),
        "m": added.astype(TYPES[mask]),
    }
    plan = freeze(_graph(dtype, mask))
    with load(plan, "cpu") as engine:
        expected = engine.run(feeds)["y"].astype(np.float32)
    ours = next(t.key for t in offered(_graph(dtype, mask), [*feeds.values()], Target()) if t.key.startswith("warpgroups"))
    for tactic in ("cudnn with a mask", ours):
        with load(plan, "cuda:0", DeviceOptions(tactics={"y": tactic})) as engine:
            (step,) = [s for s in engine.program(engine.check(feeds)).steps if s.kind == "Attention"]
            assert step.tactic == tactic
            for _ in range(3):  # kernel by kernel, captured, replayed
                got = engine.run(feeds)["y"].astype(np.float32)
                np.testing.assert_allclose(got, expected, rtol=0, atol=2e-2 if dtype == "bf16" else 4e-3)
    if abs(number) > 1e8:
        mean = feeds["v"][0].astype(np.float32).mean(axis=1, keepdims=True)
        np.testing.assert_allclose(got[0, :, :40], np.broadcast_to(mean, (HEADS, 40, SIZE)), rtol=0, atol=4e-3)
    assert (got[1, :, 9] == 0).all()
