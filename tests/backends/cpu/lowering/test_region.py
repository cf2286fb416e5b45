"""FusedConv and FusedMatMul on the CPU: the anchor's routine and what follows it, beside the body."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.ir import Graph, TensorType, dtype_of
from miniinfer_cli.ops import convolve_transposed, insert
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from tests.backends.cpu.lowering.one_node import check_graph
from tests.backends.cpu.lowering.test_matmul import normal


def region(op: str, operands: list[Any], more: list[tuple[str, Any]], domain: str = "", **attrs: Any) -> tuple[Graph, list[Any]]:
    """A region of ``op`` and of what follows it, each with an operand or None; and the arrays to feed."""
    graph, arrays = Graph("main"), [*operands, *(a for _, a in more if a is not None)]
    values = [graph.add_input(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    y = insert(graph, op, *values[: len(operands)], domain=domain, **attrs)
    following = iter(values[len(operands) :])
    for after, operand in more:
        y = insert(graph, after, y, *([] if operand is None else [next(following)]))
    graph.set_outputs([y])
    assert fuse_conv(graph) + fuse_matmul(graph) == 1
    assert [n.body is not None for n in graph] == [True]
    return graph, arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_products(dtype: Any) -> None:
    a, b, row, whole = (normal(*s, dtype=dtype) for s in ((9, 8), (8, 12), (12,), (9, 12)))
    for more in ([("Add", row), ("Relu", None)], [("Add", whole)], [("Mul", row), ("Add", whole), ("Tanh", None)]):
        check_graph(*region("MatMul", [a, b], more), f"gemm + {len(more)}", 4e-3 if dtype is np.float16 else 1e-5)
        check_graph(*region("Gemm", [a, b], more, alpha=0.5), f"gemm + {len(more)}", 4e-3 if dtype is np.float16 else 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_convolutions(dtype: Any) -> None:
    x, w, b, whole = (normal(*s, dtype=dtype) for s in ((2, 6, 5, 8), (10, 3, 3, 8), (10,), (2, 4, 3, 10)))
    for more in ([("Relu", None)], [("Add", whole), ("HardSwish", None)]):
        check_graph(
            *region("ConvNHWC", [x, w, b], more, OURS), f"conv as gemm + {len(more)}", 2e-2 if dtype is np.float16 else 1e-5
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("band_nbytes", [1, 1 << 20])
def test_transposed_convolutions(dtype: Any, band_nbytes: int, monkeypatch: Any) -> None:
    """What follows is computed on each band as it is done, and on all where taps reach the same pixels."""
    monkeypatch.setattr(convolve_transposed, "_BAND_NBYTES", band_nbytes)
    x, w, b = (normal(*s, dtype=dtype) for s in ((2, 6, 5, 8), (8, 2, 2, 3), (3,)))
    for strides, whole in (([2, 2], normal(2, 12, 10, 3, dtype=dtype)), ([1, 1], normal(2, 7, 6, 3, dtype=dtype))):
        for more in ([("Relu", None)], [("Add", whole), ("Sigmoid", None)]):
            graph = region("ConvTransposeNHWC", [x, w, b], more, OURS, strides=strides)
            check_graph(*graph, f"taps as gemm + {len(more)}", 2e-2 if dtype is np.float16 else 1e-5)


def test_an_anchor_without_a_routine_is_the_reference_s() -> None:
    check_graph(*region("ConvTranspose", [normal(1, 3, 5, 5), normal(3, 4, 3, 3)], [("Relu", None)]), "reference", 1e-5)


def test_an_operand_that_leaves_a_region_as_it_is_may_have_any_shape() -> None:
    graph, arrays = region("MatMul", [normal(2, 7), normal(7, 4)], [("Add", normal(1, 4))])
    (node,) = graph
    assert node.body is not None
    node.body.set_outputs([node.body.inputs[1]])
    graph.set_type(node.outputs[0], node.body.inputs[1].type)
    check_graph(graph, arrays, "reference", 1e-5)
