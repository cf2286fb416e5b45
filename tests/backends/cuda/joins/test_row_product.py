"""The join "row_product": which products of a few tokens it takes with what stands around them, and the same results."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from engine_format import read_plan, write_plan
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import insert, insert_many
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.harness import checked_kinds
from tests.backends.nodes import assert_close
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated
from tests.emulation.stream import Schedule

WIDTH, INNER = 192, 256
F16, F32 = np.float16, np.float32


def numbers(*shape: int, dtype: Any = F16) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


class Layer:
    """A gated layer of a decoder while it is put together: norm, two products in one, gate, product, residual."""

    def __init__(
        self,
        rows: tuple[int, ...] = (1, 1),
        dtype: Any = F16,
        *,
        nibbles: bool = False,
        norm: str = "RMSNormalization",
        sizes: tuple[int, int] = (WIDTH, INNER),
    ) -> None:
        width, inner = sizes
        self.graph, self._dtype, self._nibbles = Graph("main"), dtype, nibbles
        self.x = self.graph.add_input("x", TensorType(dtype_of(np.zeros(0, dtype)), (*rows, width)))
        self.feeds = [numbers(*rows, width, dtype=dtype)]
        scale = [self.constant(numbers(width, dtype=dtype), "scale")]
        shift = [self.constant(numbers(width + 1, dtype=dtype)[1:], "shift")] if norm == "LayerNormalization" else []
        self.normal = insert(self.graph, norm, self.x, *scale, *shift, axis=-1, epsilon=1e-3)
        self.both = insert(self.graph, "MatMul", self.normal, self.weights(width, 2 * inner))
        self.halves = insert_many(
            self.graph, "Split", self.both, self.graph.add_constant(np.array([inner] * 2)), n_outputs=2, axis=-1
        )
        self.gated = insert(self.graph, "Mul", insert(self.graph, "Swish", self.halves[0]), self.halves[1])
        down = insert(self.graph, "MatMul", self.gated, self.weights(inner, width))
        self.y = insert(self.graph, "Add", self.x, down)

    def constant(self, array: Any, name: str) -> Any:
        return self.graph.add_constant(array, name)

    def weights(self, k: int, features: int) -> Any:
        if not self._nibbles:
            return self.constant((numbers(k, features, dtype=F32) / np.sqrt(k)).astype(self._dtype), "w")
        rng = np.random.default_rng(k)
        q = self.constant(rng.integers(-8, 8, (k, features)).astype(ml_dtypes.int4), "q")
        scales = (rng.uniform(0.5, 1.5, (k // 64, features)) / np.sqrt(k) / 5).astype(self._dtype)
        return insert(self.graph, "DequantizeLinear", q, self.constant(scales, "s"), axis=0, block_size=64)

    def finished(self, *more: Any) -> Graph:
        """The graph as passes leave it, with ``more`` outputs."""
        self.graph.set_outputs([self.y, *more])
        fuse_quantized(self.graph)
        fuse_matmul(self.graph)
        fuse_pointwise(self.graph)
        return self.graph

    def kinds(self, graph: Graph, target: Target | None = None) -> list[str]:
        """Of the steps, which give what the references give."""
        tolerance = 4e-3 if self._dtype is F16 else 3e-2 if self._dtype is ml_dtypes.bfloat16 else 5e-6
        return [k.removeprefix("miniinfer.") for k in checked_kinds(graph, self.feeds, target or Target(), tolerance)]


CASES: dict[str, dict[str, Any]] = {
    "halves": {},
    "centred bf16 of four": {"dtype": ml_dtypes.bfloat16, "norm": "LayerNormalization", "rows": (2, 2)},
    "nibbles of halves": {"nibbles": True},
}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_takes_two_kernels(name: str) -> None:
    layer = Layer(**CASES[name])
    assert layer.kinds(layer.finished()) == ["RowProduct", "RowProduct" if "nibbles" in name else "FusedMatMul"]


def test_nibbles_of_f32() -> None:
    layer = Layer(nibbles=True, dtype=F32)
    assert layer.kinds(layer.finished()) == ["RowProduct", "QuantizedMatMul"]


def test_what_others_read_stays_apart() -> None:
    layer = Layer()
    assert layer.kinds(layer.finished(layer.normal)) == ["RMSNormalization", "RowProduct", "FusedMatMul"]
    layer = Layer()
    kinds = layer.kinds(layer.finished(layer.both))
    assert kinds[:1] == ["RowProduct"] and kinds[-1] == "FusedMatMul" and len(kinds) > 2
    layer = Layer()
    kinds = layer.kinds(layer.finished(layer.halves[1]))
    assert kinds[:1] == ["RowProduct"] and kinds[-1] == "FusedMatMul" and len(kinds) > 2


def joins(graph: Graph, target: Target | None = None) -> list[tuple[str, ...]]:
    """The operations of each join of the family."""
    types = infer_graph(graph, [v.type for v in graph.inputs])
    found = [j for j in joins_of(graph, types, target or Target()) if j.key == "row_product"]
    assert all(j.gain_us > 0 for j in found)
    return [tuple(n.op for n in j.nodes) for j in found]


def test_what_is_joined() -> None:
    whole = ("RMSNormalization", "MatMul", "Split", "FusedPointwise")
    assert joins(Layer().finished()) == [whole]
    assert joins(Layer(rows=(1, 8)).finished()) == [whole]
    assert joins(Layer(rows=(1, 9)).finished()) == []
    assert joins(Layer().finished(), Target(arch=80)) == joins(Layer().finished(), Target(arch=100)) == []
    assert joins(Layer(dtype=F32).finished()) == []
    halves = ("RMSNormalization", "DequantizeLinear", "MatMul", "Split", "FusedPointwise")
    assert joins(Layer(nibbles=True).finished()) == [halves, ("DequantizeLinear", "FusedMatMul")]
    assert joins(Layer(nibbles=True, dtype=F32).finished()) == [
        ("RMSNormalization", "QuantizedMatMul", "Split", "FusedPointwise")
    ]


@pytest.mark.parametrize("nibbles", [False, True])
def test_layers_that_begin_early_give_the_same_bits(nibbles: bool) -> None:
    layer = Layer(nibbles=nibbles)
    layer.y = insert(layer.graph, "Mul", layer.y, layer.y)
    plan = freeze(layer.finished())
    results, begun = [], []
    for pdl in (False, True):
        device = EmulatedDevice(schedule=Schedule("early"))
        with open_emulated(plan, device, options=DeviceOptions(pdl=pdl)) as engine:
            results += [engine.run({"x": layer.feeds[0]})[engine.outputs[0].name].tobytes() for _ in range(3)]
        begun.append(device.schedule.begun)  # what packs the weights does in any case
    assert len(set(results)) == 1 and begun[0] < begun[1]


def test_weights_of_4_bits_never_lie_on_the_device_an_element_a_byte(tmp_path: Path) -> None:
    few, many = Layer(nibbles=True), Layer(nibbles=True, rows=(1, 12))
    for layer in (few, many):
        graph = layer.finished()
        write_plan(freeze(graph), tmp_path / "layer.plan")
        plan = read_plan(tmp_path / "layer.plan")
        with open_emulated(plan) as engine:
            (got,) = engine.run({"x": layer.feeds[0]}).values()
            counts = engine.stats()["weights"]
        plan.close()
        assert_close(got, interpret(graph, layer.feeds)[0], 4e-3)
        numbers_of_4_bits = 3 * WIDTH * INNER
        assert counts["nbytes"] < numbers_of_4_bits and numbers_of_4_bits // 2 <= counts["derived_nbytes"] < numbers_of_4_bits
        assert counts["late_copies"] == 0


def test_other_types_of_weights_are_dequantized() -> None:
    graph = Graph("main")
    x = graph.add_input("x", TensorType(DType.F16, (1, WIDTH)))
    q = graph.add_constant(np.random.default_rng(1).integers(-99, 99, (WIDTH, INNER)).astype(np.int8), "q")
    w = insert(graph, "DequantizeLinear", q, graph.add_constant(numbers(INNER) / F16(99), "s"), axis=1)
    graph.set_outputs([insert(graph, "MatMul", x, w)])
    assert joins(graph) == []
