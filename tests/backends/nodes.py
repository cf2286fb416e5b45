"""Graphs of one node, what their references give, and how close to it a backend's results must be."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miniinfer_cli import ops  # noqa: F401  (registers the meanings)
from miniinfer_cli.ir import Array, Graph, TensorType, Value, dtype_of
from miniinfer_cli.ops.registry import lookup


def reference(op: str, *inputs: Any, domain: str = "", n_outputs: int = 1, **attrs: Any) -> list[Array]:
    """The node's outputs by its numpy reference."""
    with np.errstate(all="ignore"):
        return [np.asarray(o) for o in lookup(domain, op).evaluate(inputs, attrs, n_outputs=n_outputs)]


TOLERANCES = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}


def assert_close(got: Array, want: Array, tolerance: float | None = None) -> None:
    """Same type and shape; ``|got - want| <= tolerance * max(|want|, 1)`` for floats, NaN where NaN; equal otherwise."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if "float" not in got.dtype.name:
        np.testing.assert_array_equal(got, want)
        return
    limit = TOLERANCES.get(got.dtype.name, 0.0) if tolerance is None else tolerance
    g, w = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(g, w, rtol=limit, atol=limit, equal_nan=True)


def make_graph(
    op: str,
    inputs: Sequence[Any],
    *,
    domain: str,
    n_outputs: int,
    constants: Sequence[int],
    body: Graph | None,
    attrs: Mapping[str, Any],
) -> Graph:
    """A graph of one node; floats and large inputs are passed, small integer ones are known."""
    graph = Graph("one")
    values: list[Value | None] = []
    for i, array in enumerate(inputs):
        if array is None:
            values.append(None)
        elif i in constants:
            values.append(graph.add_constant(np.asarray(array), f"w{i}"))
        else:
            values.append(graph.add_input(f"x{i}", TensorType(dtype_of(array), array.shape)))
    results = [graph.new_value(f"y{i}") for i in range(n_outputs)]
    graph.add_node(op, values, results, domain=domain, attrs=attrs, body=body)
    graph.set_outputs(results)
    return graph
