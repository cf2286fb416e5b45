"""Nodes of com.microsoft by chance, and what they are to give: ONNX Runtime's answer, or a reference where it has no kernel."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.runtime.engine import Engine
from tests.onnx_import.models import read

VARIATIONS = int(os.environ.get("MINIINFER_CONTRIBUTED_CASES", "2"))
"""Nodes of each operator that a run of the tests has; `make fuzz` has more."""

Array = Any
Reference = Callable[..., Sequence[Array]]


@dataclass
class Case:
    """One node: operands by name (None: left out), of which ``stored`` are initializers; how many results it has; attributes.

    ``steps``: how many steps of its integers a result may be off, None for floats. ``reference`` stands for ONNX Runtime, and
    gets the operands and attributes. ``defined`` gives the part of a result, by its number, that means something.
    """

    op: str
    operands: Mapping[str, Array | None]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    stored: Sequence[str] = ()
    results: Sequence[str] = ("y",)
    steps: int | None = None
    tolerance: float = 2e-5
    reference: Reference | None = None
    defined: Callable[[int, Array], Array] | None = None
    domain: str = "com.microsoft"

    @property
    def feeds(self) -> dict[str, Array]:
        """The operands that are inputs."""
        return {n: np.asarray(a) for n, a in self.operands.items() if a is not None and n not in self.stored}

    def model(self) -> onnx.ModelProto:
        """The node as a model."""
        names = [n if a is not None else "" for n, a in self.operands.items()]
        node = helper.make_node(self.op, names, list(self.results), domain=self.domain, **self.attrs)
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape))
            for n, a in self.feeds.items()
        ]
        tensors = [numpy_helper.from_array(np.asarray(self.operands[n]), n) for n in self.stored if self.operands[n] is not None]
        outputs = [onnx.ValueInfoProto(name=n) for n in self.results if n]
        graph = helper.make_graph([node], "g", inputs, outputs, tensors)
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def wanted(self) -> Sequence[Array]:
        """What ONNX Runtime gives, or the reference."""
        if self.reference is not None:
            return self.reference(*self.operands.values(), **self.attrs)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        model = self.model().SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found: Sequence[Array] = session.run(None, self.feeds)
        return found


def on_cpu(plan: Plan) -> Engine:
    """The plan on the CPU."""
    return miniinfer_cli.load(plan, device="cpu")


def check(case: Case, opened: Callable[[Plan], Engine] | None = None, looser: float = 1.0) -> None:
    """Asserts that the node gives what it is to give: as it is imported, or built into a plan, which ``opened`` opens.

    ``looser``: by how much floats may be further off.
    """
    wanted = case.wanted()
    if opened is not None:
        with opened(miniinfer_cli.build(case.model(), tf32=False)) as engine:
            run = engine.run(case.feeds)
            found: Sequence[Array] = [run[n] for n in case.results if n]
    else:
        found = interpret(read(case.model()), list(case.feeds.values()))
    assert len(found) == len(wanted)
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if case.defined is not None:
            one, other = case.defined(number, one), case.defined(number, other)
        where = f"{case.op} {dict(case.attrs)} output {number}"
        if case.steps is not None and one.dtype.kind in "iu":
            np.testing.assert_allclose(one.astype(np.int64), other.astype(np.int64), rtol=0, atol=case.steps, err_msg=where)
        else:
            scale = max(float(np.abs(other.astype(np.float64)).max(initial=0)), 1e-3)
            bound = looser * (case.tolerance if one.dtype != np.float16 else 4e-3)
            np.testing.assert_allclose(
                one.astype(np.float64), other.astype(np.float64), rtol=0, atol=bound * scale, err_msg=where
            )


class Chance:
    """Sizes, choices and tensors from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def size(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def maybe(self, value: Any) -> Any:
        """``value``, or None."""
        return value if self.rng.random() < 0.5 else None

    def normal(self, *shape: int, dtype: Any = np.float32) -> Array:
        """Floats around 0."""
        return np.asarray(self.rng.standard_normal(shape)).astype(dtype)

    def integers(self, low: int, high: int, *shape: int, dtype: Any = np.int64) -> Array:
        """Integers from ``low`` to ``high``."""
        return np.asarray(self.rng.integers(low, high + 1, shape)).astype(dtype)

    def eight_bits(self, dtype: Any, *shape: int) -> Array:
        """Integers of all 8 bits."""
        info = np.iinfo(dtype)
        return self.integers(info.min, info.max, *shape, dtype=dtype)

    def quantized(self, dtype: Any, *shape: int, scale: float = 0.05) -> tuple[Array, Array, Array]:
        """A tensor of 8 bits, its scale and its zero point."""
        factor = np.float32(scale * self.rng.uniform(0.5, 1.5))
        return self.eight_bits(dtype, *shape), np.array(factor, np.float32), self.eight_bits(dtype).reshape(())
