"""Regions of pointwise nodes for tests: many operations checked by one kernel."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import Array, Graph, TensorType, dtype_of
from tests.backends.cuda.harness import run_op
from tests.backends.nodes import assert_close, reference

Call = tuple[str, tuple[int | Array | None, ...], dict[str, Any]]
"""An operation, its operands (numbers of the region's inputs, or constants) and its attributes."""


def body_of_calls(inputs: Sequence[Array], calls: Sequence[Call]) -> Graph:
    """A body whose outputs are the results of these calls, side by side."""
    body = Graph("FusedPointwise")
    values = [body.add_input(f"a{i}", TensorType(dtype_of(x), x.shape)) for i, x in enumerate(inputs)]
    results = []
    for op, operands, attrs in calls:
        read = [None if o is None else values[o] if isinstance(o, int) else body.add_constant(o) for o in operands]
        results.append(body.add(op, *read, **attrs))
    body.set_outputs(results)
    return body


def check_calls(inputs: Sequence[Array], calls: Sequence[Call], tolerance: float | None = None) -> None:
    """Every call within one region, compared with its reference."""
    got = run_body(body_of_calls(inputs, calls), inputs)
    for (op, operands, attrs), result in zip(calls, got, strict=True):
        read = [inputs[o] if isinstance(o, int) else o for o in operands]
        (want,) = reference(op, *read, **attrs)
        try:
            assert_close(result, want, tolerance)
        except AssertionError as error:
            raise AssertionError(f"{op} {attrs} of {[None if r is None else r.dtype for r in read]}: {error}") from None


def run_body(body: Graph, inputs: Sequence[Array], target: Target | None = None) -> list[Array]:
    """The outputs of a region with this body, by its lowering."""
    return run_op("FusedPointwise", *inputs, domain="miniinfer", n_outputs=len(body.outputs), body=body, target=target)


def numbers(dtype: Any, shape: tuple[int, ...], scale: float = 3.0, seed: int = 0) -> Array:
    """Numbers around 0 for floats and signed integers, from 0 on for the others; the extremes of integers among them."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind == np.bool_:
        return rng.random(shape) < 0.5
    if kind.kind not in "iu":
        return (rng.standard_normal(shape) * scale).astype(kind)
    info = np.iinfo(kind)
    array = rng.integers(max(info.min, -100), min(info.max, 100), shape, dtype=kind)
    flat = array.reshape(-1)
    flat[: min(4, flat.size)] = np.array([info.min, info.max, 0, info.max - 1], kind)[: min(4, flat.size)]
    return array
