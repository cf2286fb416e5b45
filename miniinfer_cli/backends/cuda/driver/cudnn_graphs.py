"""Problems in cuDNN's terms: graphs of its operations over tensors with numbers, in the order of the problem's operands."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from miniinfer_cli.backends.cuda.contract.problems import Activation, AttentionProblem, ConvolutionProblem
from miniinfer_cli.ir import DType

# The front end's names of the element types that it is given.
_DTYPES = {DType.F32: "FLOAT", DType.F16: "HALF", DType.BF16: "BFLOAT16"}

Problem = ConvolutionProblem | AttentionProblem
# A dimension or stride list, in cuDNN's order of axes: batch, channels, then the spatial ones.
Sizes = list[int]
# Adds the problem's operations to a graph of the front end: cudnn (the module), graph. Tensors are numbered from 1 in the
# order of the problem's operands.
Describe = Callable[[Any, Any], None]


def descriptions(problem: Problem) -> Iterable[Describe]:
    """The ways to put the problem as a graph, the likeliest first."""
    if problem.dtype not in _DTYPES:
        return
    if isinstance(problem, AttentionProblem):
        yield lambda cudnn, graph: _describe_attention(cudnn, graph, problem)
        return
    if not _is_consistent(problem):
        raise ValueError(f"the shapes do not belong together: {problem}")
    if problem.bias and problem.residual:
        # In this order the sum has precompiled engines. In the other one a kernel is compiled, for half a second; it is the
        # faster one by a microsecond where all is small, and slower by far for groups and for f32 as it is.
        yield lambda cudnn, graph: _describe_convolution(cudnn, graph, problem, bias_first=False)
    yield lambda cudnn, graph: _describe_convolution(cudnn, graph, problem, bias_first=True)


def _describe_convolution(cudnn: Any, graph: Any, problem: ConvolutionProblem, *, bias_first: bool) -> None:
    dtype = getattr(cudnn.data_type, _DTYPES[problem.dtype])
    p = _with_two_axes(problem)
    x_dims, w_dims, y_dims = (_channels_second(s) for s in (p.x_shape, p.w_shape, p.y_shape))

    def tensor(name: str, dims: Sizes, number: int) -> Any:
        return graph.tensor(dim=dims, stride=_channels_last_strides(dims), data_type=dtype, name=name, uid=number)

    def shaped(result: Any) -> Any:
        # Said of every step rather than left to be inferred: a gradient's size cannot be.
        result.set_dim(y_dims)
        result.set_stride(_channels_last_strides(y_dims))
        return result

    x, w = tensor("x", x_dims, 1), tensor("w", w_dims, 2)
    windows = {
        "pre_padding": list(p.pads_begin),
        "post_padding": list(p.pads_end),
        "stride": list(p.strides),
        "dilation": list(p.dilations),
    }
    if p.transposed:
        y = shaped(graph.conv_dgrad(loss=x, filter=w, **windows))
    else:
        y = shaped(graph.conv_fprop(image=x, weight=w, **windows))
    addends = []
    if p.bias:
        addends.append(tensor("bias", [1, y_dims[1], *(1 for _ in y_dims[2:])], 4))
    if p.residual:
        addends.append(tensor("z", y_dims, 4 + p.bias))
    for addend in addends if bias_first else reversed(addends):
        y = shaped(graph.add(a=y, b=addend))
    if p.activation:
        y = shaped(graph.relu(input=y))
    y.set_output(True)
    y.set_data_type(dtype)
    y.set_uid(3)


def _describe_attention(cudnn: Any, graph: Any, p: AttentionProblem) -> None:
    dtype = getattr(cudnn.data_type, _DTYPES[p.dtype])

    def tensor(name: str, dims: Sizes, strides: Sequence[int], number: int) -> Any:
        return graph.tensor(dim=dims, stride=list(strides), data_type=dtype, name=name, uid=number)

    q = tensor("q", [p.batch, p.heads, p.q_length, p.size], p.q_strides, 1)
    k = tensor("k", [p.batch, p.kv_heads, p.kv_length, p.size], p.k_strides, 2)
    v = tensor("v", [p.batch, p.kv_heads, p.kv_length, p.v_size], p.v_strides, 3)
    options: dict[str, Any] = {"attn_scale": p.scale, "generate_stats": False, "name": "attention"}
    if p.mask_shape is not None:
        options["bias"] = tensor("mask", list(p.mask_shape), _dense_strides(p.mask_shape), 5)
    if p.causal:
        options["diagonal_alignment"] = cudnn.diagonal_alignment.TOP_LEFT
        options["diagonal_band_right_bound"] = 0
    y, _ = graph.sdpa(q=q, k=k, v=v, **options)
    y.set_output(True)
    y.set_dim([p.batch, p.heads, p.q_length, p.v_size])
    y.set_stride(list(p.y_strides))
    y.set_data_type(dtype)
    y.set_uid(4)


def _channels_last_strides(dims: Sizes) -> Sizes:
    """Strides in elements of a dense channels-last tensor whose ``dims`` are batch, channels, spatial."""
    strides, step = [0] * len(dims), 1
    for axis in (1, *range(len(dims) - 1, 1, -1), 0):
        strides[axis] = step
        step *= dims[axis]
    return strides


def _channels_second(shape: tuple[int, ...]) -> Sizes:
    """A channels-last shape in cuDNN's order of axes."""
    return [shape[0], shape[-1], *shape[1:-1]]


def _dense_strides(shape: Sequence[int]) -> Sizes:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _with_two_axes(p: ConvolutionProblem) -> ConvolutionProblem:
    """A convolution over one axis as one over two, the first of which is 1 high; cuDNN knows two and three."""
    if len(p.strides) != 1:
        return p
    return replace(
        p,
        x_shape=(p.x_shape[0], 1, *p.x_shape[1:]),
        w_shape=(p.w_shape[0], 1, *p.w_shape[1:]),
        y_shape=(p.y_shape[0], 1, *p.y_shape[1:]),
        strides=(1, *p.strides),
        dilations=(1, *p.dilations),
        pads_begin=(0, *p.pads_begin),
        pads_end=(0, *p.pads_end),
    )


def _is_consistent(p: ConvolutionProblem) -> bool:
    """True when the shapes follow from each other, which cuDNN does not check for every engine."""
    axes = len(p.strides)
    if not 1 <= axes <= 3 or any(len(s) != axes + 2 for s in (p.x_shape, p.w_shape, p.y_shape)):
        return False
    if any(len(s) != axes for s in (p.dilations, p.pads_begin, p.pads_end)) or p.activation not in (
        Activation.NONE,
        Activation.RELU,
    ):
        return False
    # A transposed convolution takes from y's place to x's what an ordinary one takes from x's place to y's.
    wide, narrow = (p.y_shape, p.x_shape) if p.transposed else (p.x_shape, p.y_shape)
    if wide[0] != narrow[0] or narrow[-1] != p.w_shape[0] or wide[-1] != p.w_shape[-1] * p.group or p.w_shape[0] % p.group:
        return False
    for axis in range(axes):
        reach = p.dilations[axis] * (p.w_shape[1 + axis] - 1) + 1
        room = wide[1 + axis] + p.pads_begin[axis] + p.pads_end[axis] - reach
        if room < 0 or room // p.strides[axis] + 1 != narrow[1 + axis]:
            return False
    return True


def count_operands(p: Problem) -> int:
    """How many addresses the problem takes."""
    if isinstance(p, AttentionProblem):
        return 4 + (p.mask_shape is not None)
    return 3 + p.bias + p.residual
