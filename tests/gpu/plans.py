"""Plans for the tests of engines: real models, small enough to build in a second."""

from functools import cache
from pathlib import Path

import numpy as np

import miniinfer_cli
from engine_format.plan import Plan
from miniinfer_cli.ir import Array
from miniinfer_cli.runtime.bindings import Binding
from sample_models.catalogue import generate
from sample_models.request import Request

ROOT = Path(__file__).parents[2]


@cache
def digits() -> Plan:
    """The trained digits network with an open batch, in f32 without TF32."""
    return miniinfer_cli.build(ROOT / "sample_models" / "digits.onnx", tf32=False)


@cache
def small(name: str, dtype: str = "f32", *, small: bool = True, seq: int = 16) -> Plan:
    """A generated network with an open batch, without TF32; of texts, with so many tokens."""
    return miniinfer_cli.build(generate(name, Request("batch", seq, small), dtype=dtype, seed=3), tf32=False)


def sizes_of(binding: Binding, open_size: int) -> tuple[int, ...]:
    """The shape of an input, with ``open_size`` for each dimension that is left open."""
    assert binding.shape is not None, binding
    return tuple(d if isinstance(d, int) else open_size for d in binding.shape)


def images(batch: int, seed: int = 0) -> Array:
    """Inputs of the digits network."""
    return np.random.default_rng(seed).random((batch, 1, 8, 8), np.float32)
