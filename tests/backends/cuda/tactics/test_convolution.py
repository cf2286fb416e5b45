"""Conv and ConvNHWC by our kernels, and by a library."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Estimate, Policy
from miniinfer_cli.backends.cuda.choice.deciding import lower as decide
from miniinfer_cli.backends.cuda.contract.problems import Compute, ConvolutionProblem, MatmulProblem
from miniinfer_cli.backends.cuda.contract.site import Site, find_lowering
from miniinfer_cli.backends.cuda.contract.steps import LibraryCall, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_heuristic import ConvolutionHeuristic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import OwnKernels, own_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, ConvolutionOperands, Finish, convolution
from miniinfer_cli.backends.cuda.tactics.convolution.depthwise import depthwise_tactics
from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType, dtype_of, numpy_dtype
from miniinfer_cli.ops.registry import lookup
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.numpy_library import Library
from tests.backends.cuda.tactics.every_tactic import check_every_tactic, offered
from tests.backends.nodes import make_graph

OURS = "miniinfer"
CHANNELS_FIRST = ["cudnn between transposes", "tiles 64x64", "direct"]
F32 = np.dtype(np.float32)
BF16 = numpy_dtype(DType.BF16)
SUMS = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}  # of some hundred products


def normal(*shape: int, dtype: Any = F32, seed: int = 0) -> Array:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(dtype)


def check(op: str, *inputs: Array | None, **options: Any) -> None:
    domain = OURS if op.endswith("NHWC") else ""
    check_op(op, *inputs, domain=domain, tolerance=SUMS[inputs[0].dtype.name], **options)


def lower(op: str, *inputs: Array, target: Target, constants: tuple[int, ...] = (), **attrs: Any) -> Lowered:
    domain = OURS if op.endswith("NHWC") else ""
    graph = make_graph(op, inputs, domain=domain, n_outputs=1, constants=constants, body=None, attrs=attrs)
    (node,) = graph
    kinds = [TensorType(dtype_of(a), a.shape) for a in inputs]
    result = lookup(domain, op).infer_types(kinds, attrs, n_outputs=1, graphs={}, infer_graph=None)
    handles = tuple(None if v is None else v.constant for v in node.inputs)
    decided = decide(Site(node, tuple(kinds), tuple(result), handles, target))
    assert decided is not None and isinstance(decided.work, Lowered)
    return decided.work


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float32])
@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        ((2, 9, 10, 8), (32, 3, 3, 8), {"pads": [1, 1, 1, 1]}),
        ((1, 13, 9, 4), (68, 3, 2, 4), {"strides": [2, 3], "dilations": [2, 1], "pads": [2, 0, 1, 3]}),
        ((3, 5, 5, 20), (24, 1, 1, 20), {"strides": [2, 2]}),
        ((1, 6, 7, 16), (64, 3, 3, 8), {"group": 2, "auto_pad": "SAME_UPPER"}),
        ((2, 40, 4), (20, 5, 4), {"strides": [2], "auto_pad": "SAME_LOWER"}),
        ((1, 5, 6, 7, 4), (20, 2, 3, 2, 4), {"strides": [1, 2, 2], "pads": [1, 0, 1, 0, 1, 0]}),
    ],
)
def test_tiles_with_loads_of_four(x: tuple[int, ...], w: tuple[int, ...], attrs: dict[str, Any], dtype: Any) -> None:
    check("ConvNHWC", normal(*x, dtype=dtype), normal(*w, dtype=dtype), normal(w[0], dtype=dtype), **attrs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_of_any_channels(dtype: Any) -> None:
    check("ConvNHWC", normal(2, 11, 9, 3, dtype=dtype), normal(33, 3, 3, 3, dtype=dtype), None, strides=[2, 2], pads=[1, 1, 1, 1])
    check("ConvNHWC", normal(1, 8, 70, 5, dtype=dtype), normal(130, 2, 3, 5, dtype=dtype), normal(130, dtype=dtype))


@pytest.mark.parametrize("group", [1, 2])
def test_channels_first(group: int) -> None:
    x, b = normal(2, 6, 9, 11), normal(34)
    check("Conv", x, normal(34, 6 // group, 3, 3), b, group=group, pads=[1, 1, 1, 1], strides=[2, 1], dilations=[1, 2])
    check("Conv", x[:, :, 0], normal(4, 6 // group, 3), b[:4], group=group)


@pytest.mark.parametrize("constants", [(), (1, 2)])
@pytest.mark.parametrize(
    ("x", "kernel", "attrs"),
    [
        ((2, 9, 10, 16), (3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 12, 11, 24), (5, 5), {"pads": [2, 2, 2, 2], "strides": [2, 2]}),
        ((1, 9, 10, 6), (3, 4), {"dilations": [2, 1]}),
        ((2, 17, 5), (3,), {"strides": [2], "pads": [1, 1]}),
        ((1, 4, 5, 6, 4), (3, 2, 3), {"pads": [1, 0, 1, 1, 0, 1]}),
        ((3, 4, 4, 8), (1, 1), {}),
    ],
)
def test_depthwise(x: tuple[int, ...], kernel: tuple[int, ...], attrs: dict[str, Any], constants: tuple[int, ...]) -> None:
    channels = x[-1]
    target = Target(multiprocessors=1)  # so that even these fill it, and threads take rows of outputs
    for device in (target, Target()):
        inputs = normal(*x), normal(channels, *kernel, 1), normal(channels)
        check("ConvNHWC", *inputs, group=channels, constants=constants, target=device, **attrs)


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float64])
def test_depthwise_types(dtype: Any) -> None:
    inputs = normal(1, 30, 30, 16, dtype=dtype), normal(16, 3, 3, 1, dtype=dtype)
    check("ConvNHWC", *inputs, group=16, pads=[1, 1, 1, 1], target=Target(multiprocessors=1), constants=(1,))


def test_more_features_than_channels_in_a_group() -> None:
    check("ConvNHWC", normal(2, 6, 7, 4), normal(8, 3, 3, 1), normal(8), group=4)
    check("ConvNHWC", normal(2, 6, 7, 12), normal(6, 3, 3, 4), normal(6), group=3)


def test_nothing_to_write_and_nothing_to_sum() -> None:
    check("ConvNHWC", normal(0, 6, 7, 4), normal(20, 3, 3, 4), normal(20))
    check("ConvNHWC", normal(2, 6, 7, 0), normal(20, 3, 3, 0), normal(20))


def test_nan_and_infinity_stay_where_they_are() -> None:
    x = normal(1, 8, 8, 4)
    x[0, 3, 3, 1], x[0, 6, 6, 2] = np.nan, np.inf
    check("ConvNHWC", x, normal(20, 3, 3, 4), None, pads=[1, 1, 1, 1])


def test_wide_indices(wide_indices: None) -> None:
    check("ConvNHWC", normal(2, 9, 10, 8), normal(32, 3, 3, 8), normal(32), pads=[1, 1, 1, 1])
    check("ConvNHWC", normal(2, 9, 10, 16), normal(16, 3, 3, 1), normal(16), group=16)
    check("Conv", normal(2, 6, 9, 11), normal(4, 6, 3, 3), normal(4))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_library(dtype: Any) -> None:
    library = Library()
    inputs = normal(2, 9, 10, 8, dtype=dtype), normal(6, 3, 3, 4, dtype=dtype), normal(6, dtype=dtype)
    check("ConvNHWC", *inputs, group=2, pads=[1, 0, 2, 1], strides=[2, 1], target=library.target())
    assert library.accepted[0] == ConvolutionProblem(
        dtype_of(inputs[0]),
        x_shape=(2, 9, 10, 8),
        w_shape=(6, 3, 3, 4),
        y_shape=(2, 5, 9, 6),
        strides=(2, 1),
        dilations=(1, 1),
        pads_begin=(1, 0),
        pads_end=(2, 1),
        group=2,
        bias=True,
        compute=Compute.TF32 if dtype == np.float32 else Compute.F32,
    )


def test_library_without_tf32() -> None:
    library = Library()
    check("ConvNHWC", normal(1, 5, 5, 4), normal(4, 3, 3, 4), target=library.target(tf32=False))
    assert library.accepted[0].compute == "f32"


@pytest.mark.parametrize("constants", [(), (1,)])
def test_library_between_transposes(constants: tuple[int, ...]) -> None:
    target = Library().target()
    inputs = normal(2, 8, 9, 10), normal(6, 4, 3, 3), normal(6)
    check("Conv", *inputs, group=2, strides=[2, 1], target=target, constants=constants)
    lowered = lower("Conv", *inputs, group=2, target=target, constants=constants)
    assert len(lowered.derived) == len(constants)
    assert len(lowered.scratch) == 3 - len(constants)
    assert any(isinstance(a, LibraryCall) for a in lowered.actions)


def test_what_no_library_is_asked() -> None:
    library = Library()
    target = library.target()
    check("ConvNHWC", normal(1, 5, 5, 4, dtype=np.float64), normal(4, 3, 3, 4, dtype=np.float64), target=target)
    check("ConvNHWC", normal(1, 5, 5, 4), normal(4, 3, 3, 1), group=4, target=target)  # our depthwise kernel is faster
    check("ConvNHWC", normal(1, 5, 5, 0), normal(4, 3, 3, 0), target=target)
    assert not library.asked


def test_refused_by_the_library() -> None:
    library = Library(lambda problem: False)
    check("ConvNHWC", normal(2, 9, 10, 8), normal(32, 3, 3, 8), normal(32), target=library.target())
    assert library.asked


def test_four_spatial_axes_are_left_to_the_host() -> None:
    graph = make_graph(
        "Conv", [normal(1, 1, 3, 3, 3, 3), normal(1, 1, 2, 2, 2, 2)], domain="", n_outputs=1, constants=(), body=None, attrs={}
    )
    (node,) = graph
    kinds = tuple(v.type for v in node.inputs if v is not None)
    result = TensorType(DType.F32, (1, 1, 2, 2, 2, 2))
    assert find_lowering(node)(Site(node, kinds, (result,), (None, None), Target())) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_tap_is_a_matrix_product_where_no_library_convolves(dtype: Any) -> None:
    inputs = normal(2, 5, 7, 20, dtype=dtype), normal(24, 1, 1, 20, dtype=dtype), normal(24, dtype=dtype)
    check("ConvNHWC", *inputs)
    library = Library(lambda problem: isinstance(problem, MatmulProblem))
    check("ConvNHWC", *inputs, target=library.target())
    assert isinstance(library.accepted[0], MatmulProblem)
    both = Library()
    check("ConvNHWC", *inputs, target=both.target())
    assert isinstance(both.accepted[0], MatmulProblem if dtype == np.float64 else ConvolutionProblem)


@pytest.mark.parametrize("attrs", [{"strides": [2, 2]}, {"pads": [1, 0, 0, 0]}, {"group": 2}])
def test_one_tap_that_is_no_matrix_product(attrs: dict[str, Any]) -> None:
    library = Library(lambda problem: isinstance(problem, MatmulProblem))
    check("ConvNHWC", normal(2, 5, 6, 8), normal(24, 1, 1, 8 // attrs.get("group", 1)), target=library.target(), **attrs)
    assert not library.accepted


def test_a_single_pixel_is_ours() -> None:
    library = Library()
    check("ConvNHWC", normal(1, 1, 1, 40), normal(24, 1, 1, 40), normal(24), target=library.target())
    assert not library.asked


DEPTHWISE = [f"depthwise {share}" for share in ("1x1x4", "2x4x4", "2x4x2", "2x2x4", "2x2x2", "1x4x4", "1x4x2", "1x1x2")]


@pytest.mark.parametrize(
    ("x", "w", "attrs", "keys"),
    [
        ((2, 6, 7, 4), (20, 3, 2, 4), {"pads": [1, 0, 1, 1]}, ["cudnn", "tiles 64x64", "direct"]),
        ((2, 6, 7, 5), (9, 3, 2, 5), {}, ["cudnn", "direct", "tiles 64x64"]),
        (
            (2, 6, 7, 8),
            (8, 3, 3, 1),
            {"group": 8},
            [*DEPTHWISE, "cudnn", "direct", "tiles 64x64"],
        ),
        ((1, 9, 7, 12), (20, 1, 1, 12), {}, ["cudnn", "cublaslt", "gemm 64x64", "gemm 128x128", "tiles 64x64", "direct"]),
        (
            (1, 1, 1, 12),
            (20, 1, 1, 12),
            {},
            ["gemv_along_k", "gemm 64x64", "gemm 128x128", "tiles 64x64", "direct", "cublaslt", "cudnn"],
        ),
    ],
    ids=["wide", "narrow", "depthwise", "a product", "a pixel"],
)
def test_every_tactic_convolves_when_it_is_forced(x: Any, w: Any, attrs: dict[str, Any], keys: list[str]) -> None:
    operands = normal(*x), normal(*w), normal(w[0])
    for constants in ((), (1,)):
        found = check_every_tactic(
            *("ConvNHWC", *operands),
            domain=OURS,
            target=replace(Library().target(), tf32=False),
            tolerance=2e-5,
            constants=constants,
            **attrs,
        )
        assert found == keys


def test_channels_first_by_every_tactic() -> None:
    operands = normal(2, 6, 9, 11), normal(34, 3, 3, 2), normal(34)
    attrs: dict[str, Any] = {"group": 2, "strides": [2, 1]}
    target = Library().target()
    assert check_every_tactic("Conv", *operands, target=target, tolerance=2e-5, **attrs) == CHANNELS_FIRST
    assert check_every_tactic("Conv", *operands, target=target, tolerance=2e-5, constants=(1,), **attrs) == CHANNELS_FIRST


def test_thresholds_are_those_of_the_table() -> None:
    conv = convolution(
        "ConvNHWC", {"group": 8}, *(TensorType(DType.F32, s) for s in ((1, 9, 9, 8), (8, 3, 3, 1), (1, 7, 7, 8))),
        transposed=False, channels_last=True,
    )  # fmt: skip
    assert conv is not None
    io, target = ConvolutionOperands(*(Operand.input(i) for i in range(2)), Operand.output(0)), Target(multiprocessors=1)

    def first(conv: Convolution = conv, **table: Any) -> str:
        return depthwise_tactics(conv, io, Finish(), target, ConvolutionHeuristic(**table))[0].key

    assert [first(), first(busy_threads=16), first(busy_threads=17), first(busy_threads=8, many_outputs=(2, 2))] == [
        *("depthwise 1x1x4", "depthwise 2x4x4", "depthwise 1x1x4", "depthwise 2x2x4")
    ]
    apart = replace(conv, strides=(2, 2), y_shape=(1, 4, 4, 8))
    assert [first(apart, busy_threads=8), first(apart, busy_threads=9)] == ["depthwise 2x2x4", "depthwise 1x1x4"]
    line = replace(
        conv, x_shape=(1, 9, 8), w_shape=(8, 3, 1), y_shape=(1, 7, 8), strides=(1,), dilations=(1,), begin=(0,), end=(0,)
    )
    assert [first(line, busy_threads=4), first(line, busy_threads=5)] == ["depthwise 1x4x4", "depthwise 1x1x4"]
    wide = replace(conv, group=1, w_shape=(8, 3, 3, 8))
    kernels = OwnKernels("conv", (), ())
    for narrow, key in ((8, "tiles 64x64"), (9, "direct")):
        assert own_tactics(wide, kernels, Estimate(0, 0), target, ConvolutionHeuristic(narrow=narrow))[0].key == key


def test_the_estimate_counts_operations_and_tiles_that_are_partly_empty() -> None:
    x, w, b = normal(2, 6, 7, 4), normal(20, 3, 2, 4), normal(20)
    graph = make_graph("ConvNHWC", (x, w, b), domain=OURS, n_outputs=1, constants=(), body=None, attrs={})
    library, tiles, direct = (t.estimate for t in offered(graph, (x, w, b), Library().target()))
    y = 2 * 4 * 6 * 20
    assert library == direct == Estimate(2 * y * 4 * 6 + y, 4 * (x.size + w.size + b.size + y))
    assert tiles == replace(library, flops=2 * 64 * 64 * 4 * 6)
    graph = make_graph(
        *("ConvTransposeNHWC", (x, np.swapaxes(w, 0, 3))), domain=OURS, n_outputs=1, constants=(), body=None, attrs={}
    )
    assert offered(graph, (x, np.swapaxes(w, 0, 3)), Library().target())[0].estimate.flops == 2 * x.size * 20 * 6


def test_an_axis_that_32_bits_cannot_count_is_refused():
    x, w = np.broadcast_to(np.float32(0), (1 << 31, 1, 1, 1)), np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(ModelError, match="an axis of 2147483648: 2147483647 is the most"):
        lower("Conv", x, w, target=Target())


@pytest.mark.parametrize(("channels", "features"), [(24, 19), (13, 32)])
def test_one_tap_is_padded_as_the_product_that_it_is(channels: int, features: int) -> None:
    half = np.dtype(np.float16)
    x, w, b = normal(2, 3, 5, channels, dtype=half), normal(features, 1, 1, channels, dtype=half), normal(features, dtype=half)
    library = Library()
    target = library.target(policy=Policy(forced={"y0": "cublaslt padded"}))
    check("ConvNHWC", x, w, b, constants=(1, 2), target=target, by="cublaslt padded")
    (problem,) = {p for p in library.accepted if isinstance(p, MatmulProblem)}
    assert (problem.m, problem.bias) == (30, True) and problem.n % 8 == problem.k % 8 == 0


def test_many_pixels_of_odd_channels_are_padded_before_the_library_is_asked() -> None:
    x, w = np.broadcast_to(np.float16(1), (64, 40, 40, 256)), np.zeros((255, 1, 1, 256), np.float16)
    graph = make_graph("ConvNHWC", (x, w), domain=OURS, n_outputs=1, constants=(1,), body=None, attrs={})
    assert [t.key for t in offered(graph, [x], Library().target())][:2] == ["cublaslt padded", "cudnn"]
