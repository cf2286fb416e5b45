"""QuantizedConv and QuantizedMatMul on the emulated device: one kernel of bytes, or MatMulInteger and a pass, or floats."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import WAY
from miniinfer_cli.backends.cuda.tactics.products.large_products import LARGE
from miniinfer_cli.ir import DType
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from tests.backends.cuda.harness import program_of, run_graph
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.performing import perform_program
from tests.backends.cuda.tactics.every_tactic import offered
from tests.passes.quantized_graphs import CASES, assert_within_a_step, quantized_product, random_feeds

MATRICES = ("single pixels", "single pixels without a bias", "a matrix", "a matrix, and Gelu", "a matrix alone")


def region_of(case):
    graph = quantized_product(**CASES[case])
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    return graph, feeds, want


@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_region_gives_what_its_nodes_give(case, library):
    graph, feeds, want = region_of(case)
    instead = ["MatMulInteger", "miniinfer.FusedPointwise"] if case in MATRICES else ["DequantizeLinear"]
    target = Library().target(arch=80) if library else Target(arch=80)  # sm_90 has kernels for some
    (got,) = run_graph(graph, feeds, target, instead=instead)
    assert_within_a_step(got, want)


@pytest.mark.parametrize("case", CASES)
def test_matrices_are_multiplied_as_integers(case):
    graph, feeds, _ = region_of(case)
    kinds = [s.kind for s in program_of(graph, feeds, Target()).steps]
    assert ("MatMulInteger" in kinds) == (case in MATRICES)
    if case in MATRICES:
        assert kinds == ["MatMulInteger", "miniinfer.FusedPointwise"]


WHOLE: dict[str, dict[str, Any]] = {
    "a convolution": {"y_dtype": DType.U8},
    "padding that is a zero point": {"y_dtype": DType.I8, "zero": 131, "residual": True, "activation": "Relu"},
    "signed bytes": {"y_dtype": DType.I8, "x_dtype": DType.I8, "zero": -3, "activation": "Clip"},
    "what is quantized on the way": {"y_dtype": DType.U8, "residual": True, "between": True, "activation": "Relu"},
    "floats": {"activation": "Relu", "zero": 9},
    "strides": {"y_dtype": DType.I8, "stride": 2, "bias": False},
    "one scale": {"y_dtype": DType.I8, "per_channel": False},
    "more features than a tile": {"y_dtype": DType.U8, "features": 144, "residual": True},
    "features that are no pack": {"y_dtype": DType.U8, "features": 21, "residual": True, "zero": 3},
    "floats that are no pack": {"features": 21},
    "single pixels": {"y_dtype": DType.U8, "taps": 1, "residual": True, "zero": 3},
    "a matrix": {"kind": "MatMul", "y_dtype": DType.I8, "x_dtype": DType.I8, "channels": 48},
    "a long matrix": {"kind": "MatMul", "y_dtype": DType.U8, "channels": 336, "zero": 200},
    "each channel by itself": {"y_dtype": DType.U8, "group": 32, "channels": 32, "zero": 9, "activation": "Clip"},
    "each channel by itself, in steps": {"x_dtype": DType.I8, "group": 32, "channels": 32, "stride": 2, "residual": True},
    "a matrix, and Gelu": {"kind": "MatMul", "y_dtype": DType.I8, "channels": 32, "activation": "Gelu", "zero": 5},
    "a Swish behind each channel": {"y_dtype": DType.I8, "group": 32, "channels": 32, "activation": "Swish"},
    "a Sigmoid": {"y_dtype": DType.U8, "activation": "Sigmoid"},
    "taps of 80 channels": {"y_dtype": DType.U8, "channels": 80, "zero": 77},
    "a residual of floats": {"y_dtype": DType.I8, "residual": True, "floats": True, "activation": "Relu"},
    "floats and a residual of them": {"kind": "MatMul", "residual": True, "floats": True, "channels": 32},
    "a residual behind each channel": {"group": 32, "channels": 32, "residual": True, "floats": True, "y_dtype": DType.U8},
}


FOLDED: dict[str, dict[str, Any]] = {
    "three channels": {"channels": 3, "y_dtype": DType.U8, "side": 24, "taps": 7, "stride": 2, "activation": "Relu"},
    "padding that is a zero point": {"channels": 3, "y_dtype": DType.I8, "side": 9, "zero": 77, "stride": 2},
    "no steps": {"channels": 6, "y_dtype": DType.I8, "x_dtype": DType.I8, "side": 7, "taps": 5, "residual": True},
    "half a pack": {"channels": 24, "y_dtype": DType.U8, "residual": True},
    "one tap in steps": {"channels": 3, "y_dtype": DType.U8, "taps": 1, "stride": 2, "side": 9},
    "long steps": {"channels": 1, "y_dtype": DType.U8, "side": 26, "taps": 3, "stride": 4, "features": 21},
    "many pixels": {"channels": 3, "y_dtype": DType.I8, "side": 47, "zero": 3, "stride": 2, "taps": 7, "features": 64},
}


@pytest.mark.parametrize("case", FOLDED)
def test_few_channels_are_folded(case):
    graph = quantized_product(**{"features": 32, "symmetric": True} | FOLDED[case])
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    (node,) = graph
    keys = [t.key for t in offered(graph, feeds, Target(multiprocessors=4))]
    assert keys[-1] == "rewritten" and all(key.startswith((WAY, LARGE)) for key in keys[:-1])
    assert (keys[-2].startswith(LARGE)) == (case == "many pixels")
    for key in (keys[0], keys[-2]):
        forced = Target(policy=Policy(forced={node.name: key}), multiprocessors=4)
        program = program_of(graph, feeds, forced)
        assert [k.name for k in program.kernels] == ["fold_pixels", "byte_product" if key.startswith(LARGE) else "product_sm90"]
        (got,) = perform_program(program, feeds, forced)
        assert_within_a_step(got, want)


@pytest.mark.parametrize("side", [12, 47])
def test_what_is_folded_is_read_as_it_lies(side):
    graph = quantized_product(channels=3, y_dtype=DType.U8, side=side, stride=2, taps=7, zero=9, symmetric=True, turned=True)
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    program = program_of(graph, feeds, Target())
    assert [s.kind for s in program.steps] == ["miniinfer.QuantizedConv"]
    (got,) = perform_program(program, feeds, Target())
    assert_within_a_step(got, want)
    others = [s.kind for s in program_of(graph, feeds, Target(arch=80)).steps]  # which copies it
    assert others[0] == "Transpose"


F8 = dict.fromkeys(("x_dtype", "w_dtype", "y_dtype"), DType.F8E4M3FN)
"""All floats of 8 bits."""
WHOLE |= {
    "floats of 8 bits": {**F8, "residual": True, "activation": "Relu"},
    "those of a matrix, and Gelu": {**F8, "kind": "MatMul", "channels": 336, "activation": "Gelu", "per_channel": False},
    "floats of those": {**F8, "y_dtype": None, "residual": True, "floats": True, "kind": "MatMul", "channels": 32},
    "those, quantized on the way": {**F8, "residual": True, "between": True},
    "floats rounded to those": {**F8, "y_dtype": None, "between": True, "kind": "MatMul", "channels": 32},
    "those in steps, and no bias": {**F8, "stride": 2, "bias": False, "channels": 80, "features": 21, "activation": "Clip"},
}


@pytest.mark.parametrize("case", WHOLE)
def test_one_kernel_does_a_region(case):
    options = {"channels": 16, "features": 32, "symmetric": True} | WHOLE[case]
    graph = quantized_product(**options)
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    (node,) = graph
    keys = [t.key for t in offered(graph, feeds, Target())]
    wide = ["integers by channel"] if "group" in options else ["integers 128x128", "integers 128x64"]
    wide = [] if "w_dtype" in options else wide
    tokens = [key for key in keys if key.startswith(WAY)]
    assert sorted({*keys} - {*tokens}) == [*wide, "rewritten"]
    assert next(key for key in keys if key not in tokens) == "rewritten"  # so few pixels leave multiprocessors without work
    padded = options.get("kind") != "MatMul" and options.get("taps", 3) > 1 and options.get("zero", 0)
    assert bool(tokens) == (keys[0] in tokens) == (not padded and "group" not in options)
    in_parts = [key for key in tokens if key.endswith(" parts")]
    assert in_parts or case != "a long matrix"
    for key in dict.fromkeys([*wide, *tokens[:1], *tokens[-1:], *in_parts[:1]]):
        forced = Target(policy=Policy(forced={node.name: key}))
        program = program_of(graph, feeds, forced)
        assert [s.tactic for s in program.steps] == [key]
        (got,) = perform_program(program, feeds, forced)
        assert_right(got, want, options)


MANY: dict[str, dict[str, Any]] = {
    "windows": {"y_dtype": DType.U8, "residual": True, "activation": "Relu"},
    "windows of signed bytes, in steps": {"x_dtype": DType.I8, "y_dtype": DType.I8, "stride": 2, "side": 46, "bias": False},
    "more features than a tile": {"y_dtype": DType.U8, "features": 336, "between": True, "residual": True},
    "features that are no pack": {"y_dtype": DType.U8, "features": 21, "residual": True},
    "floats": {"taps": 1, "zero": 9, "activation": "Clip"},
    "floats that are no pack": {"features": 21, "taps": 1},
    "a matrix": {"kind": "MatMul", "y_dtype": DType.I8, "channels": 336, "zero": 200, "activation": "Gelu", "per_channel": False},
    "taps of 80 channels": {"y_dtype": DType.U8, "channels": 80},
    "floats of 8 bits": {**F8, "channels": 80, "residual": True, "activation": "Relu"},
    "floats of those": {**F8, "y_dtype": None, "kind": "MatMul", "channels": 144, "activation": "Gelu"},
    "floats and a residual of them": {"kind": "MatMul", "residual": True, "floats": True, "channels": 80, "zero": 3},
}


def assert_right(got, want, options):
    """Within a step; but matrix units cut off sums of floats of 8 bits, and what was half way is a sixteenth off then."""
    if "w_dtype" not in options:
        assert_within_a_step(got, want)
        return
    wide = [a.astype(np.float64) for a in (got, want)]
    np.testing.assert_array_less(
        np.linalg.norm(wide[0] - wide[1]), (1e-2 if got.itemsize == 1 else 1e-3) * np.linalg.norm(wide[1])
    )


@pytest.mark.parametrize("case", MANY)
def test_many_pixels_are_one_kernel(case):
    options = {"channels": 16, "features": 32, "symmetric": True, "side": 23} | MANY[case]
    graph = quantized_product(**options)
    feeds = random_feeds(graph)
    (want,) = interpret(graph, feeds)
    fuse_quantized(graph)
    annotate(graph)
    (node,) = graph
    keys = [t.key for t in offered(graph, feeds, Target(multiprocessors=4)) if t.key.startswith(LARGE)]
    assert len(keys) == 4
    for key in (keys[0], keys[-1]):
        forced = Target(policy=Policy(forced={node.name: key}), multiprocessors=4)
        program = program_of(graph, feeds, forced)
        assert [s.tactic for s in program.steps] == [key]
        (got,) = perform_program(program, feeds, forced)
        assert_right(got, want, options)


def test_many_pixels_are_for_the_kernel_of_many_tokens():
    for side, word in ((22, WAY), (40, LARGE)):  # of two images
        graph = quantized_product(channels=16, features=16, symmetric=True, side=side)
        fuse_quantized(graph)
        annotate(graph)
        assert offered(graph, random_feeds(graph), Target())[0].key.startswith(word)
    for options in ({"zero": 3}, {"symmetric": False}):  # padding that is no zero; weights that have zero points
        graph = quantized_product(**{"channels": 16, "features": 16, "symmetric": True, "side": 40} | options)
        fuse_quantized(graph)
        annotate(graph)
        assert not [t.key for t in offered(graph, random_feeds(graph), Target()) if t.key.startswith((WAY, LARGE))]


@pytest.mark.parametrize("options", [{}, {"group": 16}, {"kind": "MatMul"}])
def test_many_pixels_are_for_the_kernel(options):
    graph = quantized_product(**{"channels": 16, "features": 16, "symmetric": True} | options)
    fuse_quantized(graph)
    annotate(graph)
    few, many = (offered(graph, random_feeds(graph), Target(multiprocessors=n)) for n in (132, 1))
    assert few[0].key == "rewritten" if "group" in options else few[0].key.startswith(WAY)
    assert next(t.key for t in many if not t.key.startswith(WAY)).startswith("integers ")


def test_what_the_kernel_does_not_do():
    for options in (
        {"channels": 20, "stride": 2},  # too many to be folded
        {"channels": 24, "kind": "MatMul"},  # half a pack
        {"symmetric": False},
        {"group": 2},
        {"w_dtype": DType.U8},
        {"activation": "Softplus"},
        {"activation": "Sigmoid", "residual": True},
        {**F8, "group": 16},
        {"x_dtype": DType.F8E4M3FN},  # by integers
    ):
        graph = quantized_product(**({"y_dtype": DType.I8, "channels": 16, "features": 32, "symmetric": True} | options))
        fuse_quantized(graph)
        annotate(graph)
        keys = [t.key for t in offered(graph, random_feeds(graph), Target())]
        assert keys == ["rewritten"], options
    graph = quantized_product(y_dtype=DType.I8, channels=16, features=32, symmetric=True)
    fuse_quantized(graph)
    annotate(graph)
    feeds = random_feeds(graph)
    assert [t.key for t in offered(graph, feeds, Target(arch=75))] == ["rewritten"]
    needs = {t.key: t.needs(Target(arch=75)) for t in offered(graph, feeds, Target(arch=80))}
    assert needs == {"rewritten": "", "integers 128x64": "it needs sm_80", "integers 128x128": "it needs sm_80"}
    needs = {t.needs(Target(arch=80)) for t in offered(graph, feeds, Target()) if t.key.startswith(WAY)}
    assert needs == {"it is for sm_90 alone, and this is sm_80"}
