"""CausalConvWithState: a depthwise convolution along time that carries its last inputs from call to call."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, Dim, Graph, Node, TensorType, Value
from miniinfer_cli.ops.element_types import FLOATS, expect_dtype, same_dtype
from miniinfer_cli.ops.expansion import Expansion
from miniinfer_cli.ops.flops import causal_conv_flops
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.numerics import widen_half
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim
from miniinfer_cli.ops.work import CALL, Attrs, Inputs, Outputs

OP = "CausalConvWithState"
ACTIVATIONS = ("none", "silu", "swish")
_FAR = np.iinfo(np.int64).max


def infer_causal_conv(
    x: TensorType,
    w: TensorType,
    bias: TensorType | None = None,
    past_state: TensorType | None = None,
    *,
    activation: str = "none",
) -> tuple[TensorType, TensorType]:
    """``x`` [N,C,L], ``w`` [C,1,k], ``bias`` [C], ``past_state`` [N,C,k-1]: gives [N,C,L] and the next state.

    Source: ONNX CausalConvWithState-27.
    """
    if activation not in ACTIVATIONS:
        raise ModelError(f"{OP} activation is {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    dtype = same_dtype(OP, x, w, bias, past_state)
    expect_dtype(OP, x, FLOATS)
    for operand, rank in ((x, 3), (w, 3), (bias, 1), (past_state, 3)):
        if operand is not None:
            expect_rank(OP, operand, rank)
    n, channels, length = x.shape or (UNKNOWN,) * 3
    w_channels, one, kernel = w.shape or (UNKNOWN, 1, UNKNOWN)
    same_dim(OP, f"second dimension of weights {w}", one, 1)
    channels = same_dim(OP, f"channels of input {x} and weights {w}", channels, w_channels)
    if bias is not None and bias.shape is not None:
        channels = same_dim(OP, f"channels of bias {bias} and weights {w}", channels, bias.shape[0])
    state: tuple[Dim, Dim, Dim] = (n, channels, kernel - 1)
    if past_state is not None and past_state.shape is not None:
        expected = TensorType(dtype, state)
        n, channels, _ = (
            same_dim(OP, f"past_state {past_state} against {expected}", a, b)
            for a, b in zip(state, past_state.shape, strict=True)
        )
        state = (n, channels, state[2])
    return TensorType(dtype, (n, channels, length)), TensorType(dtype, state)


@widen_half
def causal_conv(
    x: Array, w: Array, bias: Array | None = None, past_state: Array | None = None, *, activation: str = "none"
) -> tuple[Array, Array]:
    """Each channel's filter over the state followed by the input; the new state is the last k-1 of these."""
    n, channels, length = x.shape
    kernel = w.shape[2]
    if past_state is None:
        past_state = np.zeros((n, channels, kernel - 1), x.dtype)
    padded = np.concatenate([past_state, x], axis=2)
    y = np.zeros_like(x)
    for tap in range(kernel):
        y += padded[:, :, tap : tap + length] * w[:, 0, tap, None]
    if bias is not None:
        y += bias[:, None]
    if activation != "none":
        with np.errstate(over="ignore"):
            y /= 1 + np.exp(-y)
    return y, np.ascontiguousarray(padded[:, :, length:])


def expand_causal_conv(graph: Graph, node: Node) -> tuple[Value, ...]:
    """Concat (or Pad) of the state and the input, a depthwise Conv, Swish, and a Slice for the new state."""
    build = Expansion(graph, node)
    x, w, past = build.required(0), build.required(1), build.input(3)
    shape = w.tensor.shape
    if shape is None or not isinstance(shape[0], int) or not isinstance(shape[2], int):
        raise ValueError(f"the weights of {node!r} have no fixed shape")
    channels, _, kernel = shape
    if past is not None:
        padded = build.op("Concat", past, x, axis=2)
    else:
        padded = build.op("Pad", x, build.integers([0, 0, int(kernel) - 1, 0, 0, 0]))
    y = build.op("Conv", padded, w, build.input(2), group=channels)
    if node.attrs.get("activation", "none") != "none":
        y = build.op("Swish", y)
    last = int(kernel) - 1
    start, end = (-last, _FAR) if last else (0, 0)
    state = build.op("Slice", padded, build.integers([start]), build.integers([end]), build.integers([2]))
    return y, state


def _work(inputs: Inputs, outputs: Outputs, attrs: Attrs) -> int:
    """A call for each tap."""
    x, w = inputs[:2]
    return 0 if x is None or w is None else w.shape[-1] * (12 * x.size + 3 * CALL)


CAUSAL_CONV = define(
    OP, infer=infer_causal_conv, reference=causal_conv, expand=expand_causal_conv, work=_work, heavy=True, flops=causal_conv_flops
)
