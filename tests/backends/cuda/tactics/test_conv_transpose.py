"""ConvTranspose and ConvTransposeNHWC by our kernels, and by a library."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import run_op
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.test_convolution import BF16, check, normal

FORMS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 5, 6, 8), (8, 3, 3, 20), {"strides": [2, 2]}),
    ((2, 5, 6, 8), (8, 3, 3, 20), {"strides": [2, 3], "pads": [1, 0, 0, 1], "dilations": [1, 2], "output_padding": [1, 2]}),
    ((1, 4, 5, 8), (8, 2, 3, 16), {"strides": [3, 1], "group": 2}),
    ((1, 7, 9, 4), (4, 4, 4, 64), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 5, 5, 4), (4, 3, 3, 16), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 5, 5, 4), (4, 3, 3, 16), {"strides": [3, 2], "output_shape": [18, 11]}),
    ((1, 5, 5, 4), (4, 3, 3, 16), {"strides": [4, 4], "dilations": [2, 6]}),
    ((2, 7, 4), (4, 3, 16), {"strides": [5]}),
    ((1, 2, 3, 4, 4), (4, 2, 2, 3, 16), {"strides": [2, 1, 2]}),
]


@pytest.mark.parametrize(("x", "w", "attrs"), FORMS)
def test_tiles_with_loads_of_four(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any]) -> None:
    check("ConvTransposeNHWC", normal(*x), normal(*w), normal(w[-1] * attrs.get("group", 1)), **attrs)


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float64])
def test_types(dtype: Any) -> None:
    inputs = normal(2, 5, 6, 8, dtype=dtype), normal(8, 3, 3, 20, dtype=dtype), normal(20, dtype=dtype)
    check("ConvTransposeNHWC", *inputs, strides=[2, 2], pads=[1, 1, 1, 1])


@pytest.mark.parametrize("features", [3, 17])
def test_channels_first(features: int) -> None:
    x, w, b = normal(2, 6, 5, 7), normal(6, features, 3, 2), normal(features)
    check("ConvTranspose", x, w, b, strides=[2, 2], pads=[1, 0, 1, 0], output_padding=[1, 1])
    check("ConvTranspose", x, w, normal(2 * features), group=2, dilations=[2, 1])


def test_few_features_and_odd_channels() -> None:
    check("ConvTransposeNHWC", normal(2, 6, 5, 6), normal(6, 4, 4, 3), normal(3), strides=[2, 2], pads=[1, 1, 1, 1])
    check("ConvTransposeNHWC", normal(2, 6, 5, 7), normal(7, 4, 4, 18), None, strides=[2, 2])
    check("ConvTransposeNHWC", normal(2, 6, 5, 6), normal(6, 4, 4, 1), normal(6), group=6, strides=[2, 2])


def test_nothing_to_write_and_nothing_to_sum() -> None:
    (empty,) = run_op("ConvTransposeNHWC", normal(0, 5, 6, 8), normal(8, 3, 3, 20), domain="miniinfer")
    assert empty.shape == (0, 7, 8, 20)
    (biases,) = run_op("ConvTransposeNHWC", normal(1, 5, 6, 0), normal(0, 3, 3, 20), normal(20), domain="miniinfer")
    np.testing.assert_array_equal(biases, np.broadcast_to(normal(20), (1, 7, 8, 20)))


def test_wide_indices(wide_indices: None) -> None:
    check("ConvTransposeNHWC", normal(2, 5, 6, 8), normal(8, 3, 3, 20), normal(20), strides=[2, 2])


@pytest.mark.parametrize(("x", "w", "attrs"), FORMS)
def test_library(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any]) -> None:
    library = Library(lambda problem: problem.transposed and min(problem.pads_end) >= 0)
    inputs = normal(*x), normal(*w), normal(w[-1] * attrs.get("group", 1))
    check("ConvTransposeNHWC", *inputs, target=library.target(), **attrs)
    beyond = attrs.get("output_shape") == [18, 11]
    assert bool(library.accepted) != beyond
    for problem in library.accepted:  # the plain convolution that goes the other way must give x
        spans = [(k - 1) * d + 1 for k, d in zip(problem.w_shape[1:-1], problem.dilations, strict=True)]
        sizes = zip(problem.y_shape[1:-1], problem.pads_begin, problem.pads_end, spans, problem.strides, strict=True)
        assert x[1:-1] == tuple((n + b + e - span) // s + 1 for n, b, e, span, s in sizes)


def test_library_between_transposes() -> None:
    library = Library()
    check("ConvTranspose", normal(2, 6, 5, 7), normal(6, 3, 3, 2), normal(3), strides=[2, 2], target=library.target())
    assert library.accepted
    check("ConvTranspose", normal(2, 6, 5, 7), normal(6, 3, 3, 2), normal(3), strides=[2, 2], target=Target())


def test_every_tactic_convolves_when_it_is_forced() -> None:
    operands, library = (normal(2, 5, 6, 8), normal(8, 3, 3, 20), normal(20)), Library()
    found = check_every_tactic(
        *("ConvTransposeNHWC", *operands), domain="miniinfer", target=library.target(), tolerance=2e-5, strides=[2, 3]
    )
    assert found == ["cudnn", "tiles 64x64", "direct"]
    operands = normal(2, 6, 5, 7), normal(6, 3, 3, 2), normal(3)
    found = check_every_tactic("ConvTranspose", *operands, target=library.target(), tolerance=2e-5, strides=[2, 2])
    assert found == ["cudnn between transposes", "direct", "tiles 64x64"]
