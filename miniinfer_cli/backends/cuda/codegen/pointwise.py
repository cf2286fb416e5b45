"""Chains of pointwise nodes as one kernel: its launch over given memory, and what may be computed in place."""

from collections.abc import Sequence

from miniinfer_cli.backends.cuda.codegen.body import body_of
from miniinfer_cli.backends.cuda.codegen.kernel import Source, is_dense, pointwise_launch
from miniinfer_cli.backends.cuda.contract.site import static_shape
from miniinfer_cli.backends.cuda.contract.steps import Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.ir import Graph, TensorType, Type
from miniinfer_cli.ops.inference import Types


class NotOneKernelError(ValueError):
    """A body that no single kernel computes: a node has no expression, a constant is large, or outputs differ in shape."""


def launch_of(
    body: Graph,
    types: Types,
    operands: Sequence[Operand],
    results: Sequence[Operand],
    target: Target,
    strides: Sequence[tuple[int, ...] | None] = (),
) -> Launch[Operand] | None:
    """One launch for the whole ``body``; None where its outputs have no elements.

    ``types`` are those of every value, from ``infer_graph``. ``operands`` go with the body's inputs, ``results`` with its
    outputs; an output may go where an input of the same size and shape lies. ``strides`` are of operands that are not dense, None
    for the others. Raises NotOneKernelError.
    """
    if any(v.constant is not None and v.constant.size != 1 for v in body.constants()):
        raise NotOneKernelError(f"{body.name}: a constant has several elements")
    shapes = list(dict.fromkeys(static_shape(_tensor(types.get(v, v.type))) for v in body.outputs))
    function = body_of(body, types) if len(shapes) == 1 else None
    if function is None:
        raise NotOneKernelError(f"{body.name}: no single kernel computes this")
    walks = (*strides, *(None,) * len(operands))
    sources = [Source(operands[i], static_shape(_tensor(types[body.inputs[i]])), walks[i]) for i in function.reads]
    return pointwise_launch(function, sources, results, shapes[0], target)


def reusable(operands: Sequence[TensorType], numbers: Sequence[int], result: TensorType) -> tuple[int, ...]:
    """The ``numbers`` of those operands in whose memory the result may be written: each element is read before it is."""
    shape, nbytes = static_shape(result), element_nbytes(result.dtype)
    return tuple(
        n
        for t, n in zip(operands, numbers, strict=True)
        if element_nbytes(t.dtype) == nbytes and is_dense(static_shape(t), shape)
    )


def launched(
    launch: Launch[Operand] | None, operands: Sequence[TensorType], numbers: Sequence[int], results: Sequence[TensorType]
) -> Lowered:
    """A launch that computes all outputs of a node, with what may be computed in place; nothing where there is no launch."""
    if launch is None:
        return Lowered(())
    free = {k: reusable(operands, numbers, t) for k, t in enumerate(results)}
    return Lowered((launch,), in_place={k: v for k, v in free.items() if v}, tactic="pointwise")


def _tensor(kind: Type | None) -> TensorType:
    assert isinstance(kind, TensorType)
    return kind
