"""A shape rule that does not tell what the reference gives: refused wherever the two meet, on both backends."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.ops import UNKNOWN, define, registry
from miniinfer_cli.ops.agreement import expect_told
from tests.emulation.engine import open_emulated, plan_of

F32 = DType.F32


@pytest.fixture
def lie(monkeypatch):
    """Defines my::Lie, whose rule tells one type while its reference gives another array."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    return lambda told, given: define("Lie", domain="my", infer=lambda *xs: told, reference=lambda *xs: given)


@pytest.mark.parametrize(
    ("told", "given"),
    [
        (TensorType(F32, (5, 3)), np.zeros((1, 3), np.float32)),  # numpy would spread it
        (TensorType(F32, (2, 3)), np.zeros(3, np.float32)),
        (TensorType(F32, (2, 3)), np.zeros((2, 4), np.float32)),
        (TensorType(F32, (2, 3)), np.zeros((2, 3), np.float64)),
        (TensorType(F32, (UNKNOWN, 3)), np.zeros((2, 4), np.float32)),
        (TensorType(F32), np.zeros((2, 4), np.int64)),
        (TensorType(F32, (2, 3)), [np.zeros((2, 3), np.float32)]),
    ],
)
def test_neither_backend_makes_it_fit(lie, told, given):
    lie(told, given)
    plan = plan_of("graph main(x: f32[n,3]) {\n  a = my.Lie(x)\n  y = Neg(a)\n  return y\n}")
    for opened in (miniinfer_cli.load(plan, device="cpu"), open_emulated(plan)):
        with opened as engine, pytest.raises(ModelError, match=r"node 'a': my\.Lie: computed .*, its shape rule says f32\["):
            engine.run({"x": np.zeros((2, 3), np.float32)})


def test_a_constant_is_not_made_of_it(lie):
    lie(TensorType(F32, (2,)), np.zeros(1, np.float32))
    text = "graph main(x: f32[2]) {\n  c: f32[1] = const [1.0]\n  a = my.Lie(c)\n  y = Add(x, a)\n  return y\n}"
    with pytest.raises(ModelError, match=r"node 'a': Lie: computed f32\[1\], its shape rule says f32\[2\]"):
        plan_of(text)


@pytest.mark.parametrize(
    ("told", "given"),
    [
        (TensorType(F32, (UNKNOWN, 3)), np.zeros((2, 3), np.float32)),
        (TensorType(F32), np.zeros((2, 3), np.float32)),
        (TensorType(DType.STR, (1,)), np.array(["a"], object)),
        (None, np.zeros(2, np.float64)),
    ],
)
def test_what_a_rule_leaves_open_may_be_anything(told, given):
    expect_told("Lie", given, told)
