"""Every tactic of a few nodes of each family, forced on the GPU, gives what the CPU gives: one program has them all."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.tactic import REWRITTEN
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.device import open_device
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.ir import Graph, TensorType, Value, dtype_of
from miniinfer_cli.ops.inference import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.planning.freeze import freeze
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.nodes import assert_close

F16, F32, I8 = np.float16, np.float32, np.int8
OURS = "miniinfer"
_OURS = ("CachedAttention", "Excitation", "RotaryAttention", "SqueezeExcitation")


def normal(*shape: int, dtype: Any = F32) -> Any:
    numbers = np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)
    return (numbers * 20).astype(dtype) if dtype is I8 else numbers.astype(dtype)


def _heads(queries: int, keys: int, dtype: Any) -> tuple[Any, ...]:
    return tuple(normal(2, 4, n, 64, dtype=dtype) for n in (queries, keys, keys))


# The operation, its operands, and what else there is: its attributes, ``constants``, ``outputs``, and the ``limit`` of errors.
NODES: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]] = [
    ("ConvNHWC", (normal(2, 13, 14, 16, dtype=F16), normal(40, 3, 3, 16, dtype=F16), normal(40, dtype=F16)), {"limit": 2e-2}),
    ("ConvNHWC", (normal(2, 9, 14, 32, dtype=F16), normal(72, 1, 1, 32, dtype=F16)), {"limit": 2e-2}),
    ("ConvNHWC", (normal(2, 30, 31, 32), normal(32, 3, 3, 1)), {"group": 32, "constants": (1,)}),
    (
        "ConvNHWC",
        (normal(2, 17, 18, 96, dtype=F16), normal(144, 3, 3, 16, dtype=F16) / 12, normal(144, dtype=F16)),
        {"group": 6, "constants": (1,), "pads": [1, 1, 1, 1], "limit": 2e-2},
    ),
    (
        "ConvNHWC",
        (normal(2, 17, 18, 144, dtype=F16), normal(144, 3, 3, 48, dtype=F16) / 20),
        {"group": 3, "constants": (1,), "pads": [1, 1, 1, 1], "strides": [2, 2], "limit": 2e-2},
    ),
    *(
        (
            "ConvNHWC",
            (normal(3, 30, 31, 96, dtype=F16), normal(96, kernel, kernel, 1, dtype=F16) / kernel, normal(96, dtype=F16)),
            {"group": 96, "constants": (1,), "pads": [kernel // 2] * 4, "strides": [step, step], "limit": 2e-2},
        )
        for kernel, step in ((3, 1), (5, 2))
    ),
    ("ConvNHWC", (normal(2, 33, 35, 3, dtype=F16), normal(72, 16, 16, 3, dtype=F16) / 28), {"strides": [16, 16], "limit": 2e-2}),
    ("Conv", (normal(2, 8, 13, 14, dtype=F16), normal(20, 8, 3, 3, dtype=F16)), {"limit": 2e-2, "constants": (1,)}),
    ("Excitation", (normal(3, 1, 1, 300), normal(24, 1, 1, 300) / 17, normal(300, 1, 1, 24) / 5), {}),
    *(
        (
            "SqueezeExcitation",
            (
                normal(3, *shape, dtype=F16),
                normal(24, 1, 1, shape[-1], dtype=F16) / 17,
                normal(shape[-1], 1, 1, 24, dtype=F16) / 5,
            ),
            {"constants": (1, 2), "limit": 1e-2},
        )
        for shape in ((9, 13, 200), (7, 7, 1152), (56, 57, 32))
    ),
    ("ConvTransposeNHWC", (normal(2, 7, 6, 16, dtype=F16), normal(16, 3, 3, 24, dtype=F16)), {"strides": [2, 2], "limit": 2e-2}),
    ("Attention", _heads(70, 300, F16), {"limit": 4e-3}),
    ("Attention", _heads(70, 300, F16), {"is_causal": 1, "limit": 4e-3}),
    ("Attention", (*_heads(70, 300, F16), normal(70, 300, dtype=F16)), {"limit": 4e-3}),
    ("Attention", _heads(33, 130, F32), {"softcap": 2.0}),
    ("RotaryAttention", (*_heads(70, 300, F16), *(None,) * 4, *(normal(2, 70, 32, dtype=F16),) * 2), {"limit": 4e-3}),
    (
        "CachedAttention",
        (
            *(normal(2, heads, 1, 64, dtype=F16) for heads in (32, 4, 4)),
            *(normal(2, 4, 1000, 64, dtype=F16),) * 2,
            *(np.array([3, 900]), np.array([4, 901])),
            *(normal(2, 1, 32, dtype=F16),) * 2,
        ),
        {"limit": 4e-3, "outputs": 3},
    ),
    ("MatMul", (normal(1, 2048, dtype=F16), normal(2048, 2560, dtype=F16) / F16(45)), {"limit": 4e-3, "constants": (1,)}),
    (
        "Gemm",
        (normal(8, 1096, dtype=F16), normal(1000, 1096, dtype=F16) / F16(33)),
        {"limit": 4e-3, "constants": (1,), "transB": 1},
    ),
    ("Softmax", (normal(70, 1000),), {}),
    ("Softmax", (normal(3, 1100, 6),), {"axis": 1}),
    ("LayerNormalization", (normal(70, 768, dtype=F16), normal(768, dtype=F16), normal(768, dtype=F16)), {"limit": 1e-2}),
    ("GroupNormalization", (normal(2, 12, 9, 8), normal(12), normal(12)), {"num_groups": 3}),
    ("ReduceSum", (normal(7, 20000), np.array([1])), {"constants": (1,), "limit": 2e-4}),
    ("ReduceMean", (normal(3, 1200, 20), np.array([1])), {"constants": (1,)}),
    ("ArgMax", (normal(7, 5000),), {"axis": 1}),
    ("Transpose", (normal(200, 130, dtype=F16),), {"perm": [1, 0]}),
    ("Concat", (normal(3, 50), normal(4, 50), normal(9, 50)), {"axis": 0}),
    ("CumSum", (normal(3, 5000), np.array(1)), {"constants": (1,), "limit": 1e-3}),
    ("CumSum", (normal(3, 500, 7), np.array(1)), {"constants": (1,), "limit": 1e-3}),
    ("TopK", (normal(3, 6000), np.array([50])), {"constants": (1,), "outputs": 2}),
    ("MatMulInteger", (normal(48, 64, dtype=I8), normal(64, 32, dtype=I8), np.array(3, I8)), {"constants": (1, 2)}),
    ("DeformConv", (normal(1, 8, 9, 9), normal(16, 8, 3, 3), normal(1, 18, 7, 7)), {"limit": 1e-3}),
    ("LSTM", (normal(6, 5, 8), normal(1, 64, 8) * 0.3, normal(1, 64, 16) * 0.3), {"hidden_size": 16, "limit": 1e-4}),
    ("MatMul", (normal(70, 700, dtype=F16), normal(700, 48, dtype=F16)), {"limit": 3e-2}),
    ("MatMul", (normal(70, 704, dtype=F16), normal(704, 200, dtype=F16)), {"limit": 3e-2, "constants": (1,)}),
    ("MatMul", (normal(1030, 104, dtype=F16), normal(104, 200, dtype=F16)), {"limit": 3e-2, "constants": (1,)}),
    ("Gemm", (normal(197, 768), normal(100, 768) / 20, normal(100)), {"limit": 1e-2, "constants": (1, 2), "transB": 1}),
    ("MatMul", (normal(1, 700, dtype=F16), normal(700, 48, dtype=F16)), {"limit": 3e-2}),
]


class _Copies:
    """A graph with the node once for each of its tactics, which are forced by the names of these."""

    def __init__(self, op: str, operands: tuple[Any, ...], options: Mapping[str, Any], target: Target) -> None:
        self.limit = options.get("limit", 2e-5)
        self._op, self._operands = op, operands
        self._constants, self._outputs = options.get("constants", ()), options.get("outputs", 1)
        self._attrs = {k: v for k, v in options.items() if k not in ("limit", "constants", "outputs")}
        self.inputs = [a for i, a in enumerate(operands) if a is not None and i not in self._constants]
        self.one = self._graph(1)
        keys = [t.key for t in offered(self.one, self.inputs, target)]
        self.keys = [key for key in dict.fromkeys(keys) if key != REWRITTEN]
        self.graph = self._graph(len(self.keys))
        self.forced = {node.name: key for node, key in zip(self.graph.nodes, self.keys, strict=True)}

    def _graph(self, copies: int) -> Graph:
        graph, values = Graph("copies"), list[Value | None]()
        for i, array in enumerate(self._operands):
            if array is None:
                values.append(None)
                continue
            is_constant = i in self._constants
            kind = TensorType(dtype_of(array), array.shape)
            values.append(graph.add_constant(array, f"w{i}") if is_constant else graph.add_input(f"x{i}", kind))
        results = []
        for number in range(copies):
            made = [graph.new_value(f"y{number}_{i}") for i in range(self._outputs)]
            domain = OURS if self._op.endswith("NHWC") or self._op in _OURS else ""
            graph.add_node(self._op, values, made, domain=domain, attrs=self._attrs)
            results += made
        graph.set_outputs(results)
        annotate(graph)
        return graph


def _target() -> Target:
    """The device, whose libraries take all that is asked of them here."""
    with open_device(0) as device:
        sizes = device.arch, device.multiprocessors, device.shared_nbytes
    return Target(*sizes, tf32=False, supports=lambda problem: True)


@pytest.mark.parametrize(("op", "operands", "options"), NODES, ids=[f"{i}-{op}" for i, (op, *_) in enumerate(NODES)])
def test_every_tactic_is_right_when_it_is_forced(op: str, operands: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    copies = _Copies(op, operands, options, _target())
    want = interpret(copies.one, copies.inputs)
    given = {f"x{i}": a for i, a in enumerate(operands) if a is not None and i not in options.get("constants", ())}
    plan = freeze(copies.graph, options={"tf32": False})
    with load(plan, "cuda:0", DeviceOptions(tactics=copies.forced)) as engine:
        done = [s.tactic for s in engine.program(engine.check(given)).steps if s.kind.endswith(op)]
        assert done == copies.keys
        got = list(engine.run(given).values())
    for number, key in enumerate(copies.keys):
        for g, w in zip(got[number * len(want) : (number + 1) * len(want)], want, strict=True):
            try:
                assert_close(g, w, copies.limit)
            except AssertionError as error:
                error.add_note(f"by {key!r}")
                raise
