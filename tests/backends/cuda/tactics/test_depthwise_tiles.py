"""Depthwise convolutions by tiles in shared memory on sm_90: what is offered, the numbers, schedules; faults that are seen."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Convolution, ConvolutionOperands, Finish
from miniinfer_cli.backends.cuda.tactics.convolution.depthwise_tiles import TILES, Tile, depthwise_launch, packs_of
from miniinfer_cli.ir import DType, Graph, TensorType, dtype_of
from miniinfer_cli.ops import annotate
from miniinfer_cli.ops.interpreter import interpret
from miniinfer_cli.ops.registry import OURS
from miniinfer_cli.passes.fuse_conv import fuse_conv
from tests.backends.cuda.harness import check_op, run_graph
from tests.backends.cuda.tactics import faults
from tests.backends.cuda.tactics.every_tactic import offered
from tests.backends.cuda.tactics.test_pixel_products import F16, FOLLOWING, numbers, offers
from tests.backends.nodes import assert_close, reference
from tests.emulation.compiler import EARLY, LATE
from tests.sm90_cases.running import emulated_arrays

WAY = "depthwise tiles"
PADDED = {"pads": [1, 1, 1, 1]}


def tiles(keys: list[str]) -> list[str]:
    return [key for key in keys if key.startswith(WAY)]


SHAPES: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "three by three": ((2, 9, 18, 48), 3, PADDED),
    "in steps of two": ((1, 17, 20, 96), 3, {"pads": [0, 1, 1, 0], "strides": [2, 2]}),
    "five by five": ((1, 14, 15, 56), 5, {"pads": [2, 2, 2, 2]}),
    "five by five in steps of two": ((2, 11, 9, 8), 5, {"pads": [2, 1, 2, 3], "strides": [2, 2]}),
    "seven by seven, no padding": ((1, 12, 9, 24), 7, {}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_tile(name: str) -> None:
    x_shape, kernel, attrs = SHAPES[name]
    channels = x_shape[-1]
    x, w, b = numbers(*x_shape), numbers(channels, kernel, kernel, 1), numbers(channels)
    found = tiles(offers(x, w, group=channels, **attrs))
    assert sorted(found) == sorted(tile.key for tile in TILES)
    for key in found:
        target = Target(policy=Policy(forced={"y0": key}))
        given = {"domain": OURS, "constants": (1, 2), "target": target, "by": key, "tolerance": 4e-3}
        check_op("ConvNHWC", x, w, b, group=channels, **given, **attrs)


def test_bf16_and_no_bias() -> None:
    x, w = (numbers(*shape, dtype=ml_dtypes.bfloat16) for shape in ((1, 9, 9, 64), (64, 3, 3, 1)))
    target = Target(policy=Policy(forced={"y0": TILES[0].key}))
    given = {"domain": OURS, "constants": (1,), "target": target, "by": TILES[0].key, "tolerance": 3e-2}
    check_op("ConvNHWC", x, w, group=64, **given, **PADDED)


def test_what_it_is_not_offered_for() -> None:
    x, w = numbers(1, 9, 9, 64), numbers(64, 3, 3, 1)
    assert tiles(offers(x, w, group=64, **PADDED))
    for arch in (80, 100):
        assert not tiles(offers(x, w, Target(arch=arch), group=64, **PADDED))
    assert not tiles(offers(*(a.astype(np.float32) for a in (x, w)), group=64, **PADDED))
    assert not tiles(offers(numbers(1, 9, 9, 60), numbers(60, 3, 3, 1), group=60))
    assert not tiles(offers(x, numbers(64, 3, 5, 1), group=64))
    assert not tiles(offers(x, numbers(64, 2, 2, 1), group=64))
    assert not tiles(offers(x, w, group=64, dilations=[2, 2]))
    assert not tiles(offers(x, w, group=64, strides=[1, 2]))
    assert not tiles(offers(x, w, group=64, strides=[3, 3]))
    assert not tiles(offers(numbers(1, 9, 9, 9, 64), numbers(64, 3, 3, 3, 1), group=64))
    less = Target(shared_nbytes=24 << 10)
    assert 0 < len(tiles(offers(x, w, less, group=64, **PADDED))) < len(TILES)


@pytest.mark.parametrize(
    ("images", "size", "kernel", "step", "tile"),
    [
        *(
            (64, 112, 3, 1, "8x16 by 2x4"),
            (64, 112, 3, 2, "8x8 by 2x2"),
            (64, 14, 5, 1, "8x16 by 1x4"),
            (64, 7, 5, 1, "8x8 by 2x2"),
        ),
        (1, 14, 5, 1, "4x8 by 1x2"),
    ],
)
def test_the_heuristic_s_tile(images: int, size: int, kernel: int, step: int, tile: str) -> None:
    """Those that were measured to be fastest, or nearly so."""
    x, w = (np.broadcast_to(F16(0), shape) for shape in ((images, size, size, 1152), (1152, kernel, kernel, 1)))
    attrs = {"group": 1152, "strides": [step, step], "pads": [kernel // 2] * 4}
    assert offers(x, w, **attrs)[0] == f"{WAY} {tile}"
    assert offers(x, w, Target(arch=80), **attrs)[0].startswith("depthwise ") and not tiles(
        offers(x, w, Target(arch=80), **attrs)
    )


def test_weights_that_are_computed_are_left_to_others() -> None:
    x, w = numbers(1, 9, 9, 64), numbers(64, 3, 3, 1)
    graph = Graph("g")
    given = [graph.add_input(n, TensorType(dtype_of(a), a.shape)) for n, a in (("x", x), ("w", w))]
    graph.set_outputs([graph.add("ConvNHWC", *given, domain=OURS, group=64)])
    annotate(graph)
    assert not tiles([t.key for t in offered(graph, [x, w], Target())])


@pytest.mark.parametrize(("channels", "packs"), [(32, 4), (96, 6), (144, 6), (192, 8), (672, 7), (88, 1), (8, 1)])
def test_vectors_of_a_block_divide_all_of_them(channels: int, packs: int) -> None:
    assert packs_of(convolution((1, 9, 9, channels), 3, 1)) == packs


@pytest.mark.parametrize("follows", ["relu", "relu6", "swish"])
def test_what_follows_is_done_in_the_kernel(follows: str) -> None:
    graph, image = Graph("g"), numbers(2, 9, 11, 40)
    x = graph.add_input("x", TensorType(dtype_of(image), image.shape))
    w, b = (graph.add_constant(a, f"w{i}") for i, a in enumerate((numbers(40, 3, 3, 1), numbers(40))))
    y = graph.add("ConvNHWC", x, w, b, domain=OURS, group=40, **PADDED)
    graph.set_outputs([FOLLOWING[follows](graph, y, y)])
    annotate(graph)
    assert fuse_conv(graph) == 1
    (node,) = graph
    whole = [t.key for t in offered(graph, [image], Target()) if t.claims == len(node.body or ())]
    assert sorted(tiles(whole)) == sorted(tile.key for tile in TILES)
    target = Target(policy=Policy(forced={node.name: TILES[1].key}))
    (got,), (want,) = run_graph(graph, [image], target), interpret(graph, [image])
    assert_close(got, want, 4e-3)
    program = make_program(graph, [v.type for v in graph.inputs], target)
    assert [kernel.name for kernel in program.kernels] == ["depthwise_tiles"]


X, W, B, Y = (*map(Operand.input, range(3)), Operand.output(0))


def convolution(shape: Sequence[int], kernel: int, step: int) -> Convolution:
    images, height, width, channels = shape
    pad = kernel // 2
    out = tuple((n + 2 * pad - kernel) // step + 1 for n in (height, width))
    sides = {"strides": (step, step), "dilations": (1, 1), "begin": (pad, pad), "end": (pad, pad)}
    shapes = {"x_shape": tuple(shape), "w_shape": (channels, kernel, kernel, 1), "y_shape": (images, *out, channels)}
    return Convolution(dtype=DType.F16, **shapes, **sides, group=channels, transposed=False, channels_last=True)


def found(tile: Tile, seed: int, kernel: Kernel | None = None, before: Activation = Activation.NONE) -> float:
    """How far results are from those in f64; 1 and more where one is not written."""
    conv = convolution((2, 11, 19, 96), 3, 2)
    x, w, b = (numbers(*shape) for shape in (conv.x_shape, conv.w_shape, (96,)))
    io, finish = ConvolutionOperands(X, W, Y), Finish(bias=B, activation=Activation.RELU)
    launch: Launch[Operand] = depthwise_launch(tile, conv, io, finish, W, before)
    turned = np.ascontiguousarray(w.reshape(96, 9).T)
    arrays = {X: x, W: turned, B: b, Y: np.full(conv.y_shape, np.nan, F16)}
    got = emulated_arrays(launch, arrays, seed, kernel)[Y].astype(np.float64)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    if before is Activation.SWISH:
        wide[0] = (wide[0] / (1 + np.exp(-wide[0]))).astype(F16).astype(np.float64)
    (want,) = reference("ConvNHWC", *wide, domain=OURS, group=96, strides=[2, 2], pads=[1, 1, 1, 1])
    want = np.maximum(want, 0)
    difference = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return difference if difference == difference else np.inf


@pytest.mark.parametrize("seed", [LATE, EARLY, 7])
def test_schedules(seed: int) -> None:
    assert found(TILES[0], seed) < 1e-3
    assert found(TILES[-1], seed, before=Activation.SWISH) < 1e-3


TEXT = faults.kernel_text("depthwise")
# What is wrong, and what stands there instead of what.
FAULTS = {
    "the first image for all": ("top * MI_STRIDE - begin_down, image);", "top * MI_STRIDE - begin_down, 0);"),
    "a tile that begins one pixel later": ("left * MI_STRIDE - begin_across, top", "left * MI_STRIDE, top"),
    "a tile that begins one row later": ("top * MI_STRIDE - begin_down, image", "top * MI_STRIDE, image"),
    "channels of the first block": ("loaded, channel0, left", "loaded, 0, left"),
    "weights of the first block": ("channels + channel0 + i % MI_PACKS", "channels + i % MI_PACKS"),
    "no wait for the tile": ("  await(loaded, 0);\n", ""),
    "no wait for the weights": ("  __syncthreads();\n  await_turn();", "  await_turn();"),
    "rows of threads beside each other": ("(row0 * MI_STRIDE * READ_ACROSS", "(row0 * READ_ACROSS"),
    "columns of threads beside each other": ("column0 * MI_STRIDE) * MI_PACKS + pack", "column0) * MI_PACKS + pack"),
    "taps of one row": ("(ky * MI_KERNEL + kx) * MI_PACKS", "(kx) * MI_PACKS"),
    "the last row": ("if (oh >= height) break;", "if (oh >= height - 1) break;"),
    "the last column": ("if (ow >= width) break;", "if (ow >= width - 1) break;"),
    "the bias of another vector": ("load_pack<MI_T, 8>(bias + channel)", "load_pack<MI_T, 8>(bias + channel0)"),
}


@pytest.mark.parametrize("name", faults.some_of(FAULTS))
def test_a_fault_is_seen(name: str) -> None:
    right, wrong = FAULTS[name]
    assert TEXT.count(right) == 1
    kernel = Kernel("depthwise_tiles", code=TEXT.replace(right, wrong))
    for seed in (LATE, EARLY, *range(2, 12)):
        try:
            if not found(TILES[2], seed, kernel) < 1e-3:
                return
        except AssertionError:
            return
    pytest.fail("no schedule shows it")
