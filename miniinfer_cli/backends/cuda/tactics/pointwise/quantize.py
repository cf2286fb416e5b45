"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: per tensor, per axis, or in blocks along an axis."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.codegen.body import single
from miniinfer_cli.backends.cuda.codegen.kernel import Source, pointwise_launch
from miniinfer_cli.backends.cuda.codegen.pointwise import launched
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, Operand, Rewrite, outputs
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name
from miniinfer_cli.ir import DType, Graph, Node, TensorType

_PARTS = 256  # blocks that look for a range, at most: what one block joins in a step


@lowers("QuantizeLinear")
def lower_quantize(site: Site) -> Lowered | Rewrite | None:
    """One kernel over ``x``, onto which scale and zero point are made to broadcast; of DequantizeLinear as well."""
    shape = site.shape(0)
    scale = site.shape(1)
    axis = 0 if len(shape) == 1 else site.attr("axis", 1) % max(len(shape), 1)
    block = site.attr("block_size", 0)
    full, spread = shape, scale
    if math.prod(scale) == 1:
        spread = ()
    elif not block:
        spread = (scale[0], *(1 for _ in shape[axis + 1 :]))
    elif shape[axis] % block == 0:
        full = (*shape[:axis], shape[axis] // block, block, *shape[axis + 1 :])
        spread = (*scale[: axis + 1], 1, *scale[axis + 1 :])
    else:
        return Rewrite(_with_repeated_scales(site, axis, block))
    numbers = [i for i in range(3) if site.has(i)]
    body = single(site.node, [site.dtype(i) if site.has(i) else None for i in range(3)], site.out_dtype())
    if body is None:
        return None
    shapes = [full, *(spread for _ in numbers[1:])]
    sources = [Source(Operand.input(i), s) for i, s in zip(numbers, shapes, strict=True)]
    launch = pointwise_launch(body, sources, outputs(0), full, site.target)
    operands = [TensorType(site.dtype(i), s) for i, s in zip(numbers, shapes, strict=True)]
    return launched(launch, operands, numbers, [TensorType(site.out_dtype(), full)])


def _with_repeated_scales(site: Site, axis: int, block: int) -> Graph:
    """The node with scale and zero point repeated, one for each element: the last block is not whole."""
    graph = Graph(site.node.op)
    operands = [None if t is None else graph.add_input(f"x{i}", t) for i, t in enumerate(site.types)]
    index = graph.add_constant(np.arange(site.shape(0)[axis]) // block)
    for i in range(1, len(operands)):
        operand = operands[i]
        if operand is not None:
            operands[i] = graph.add("Gather", operand, index, axis=axis)
    result = graph.new_value("y", site.results[0])
    graph.add_node(site.node.op, operands, (result,), attrs={**site.node.attrs, "block_size": 1})
    graph.set_outputs([result])
    return graph


@lowers("DynamicQuantizeLinear")
def lower_dynamic_quantize(site: Site) -> Lowered | None:
    """The range in two steps, of many blocks and of one, then the quantization."""
    if not site.gives(2):
        return None  # the kernels write scale and zero point, and read them
    count = math.prod(site.shape(0))
    index = index_dtype(count)
    defines = (("MI_INDEX", index_name(count)),)
    parts = min(blocks_for(count, site.target.multiprocessors, per_thread=8), _PARTS)
    ranges = Launch(
        Kernel("find_ranges", "quantize.cu", defines),
        (parts,),
        (BLOCK,),
        (Operand.input(0), Operand.scratch(0), index.type(count)),
    )
    scale: Launch[Operand] = Launch(
        Kernel("choose_scale", "quantize.cu", defines), (1,), (BLOCK,), (Operand.scratch(0), np.int32(parts), *outputs(1, 2))
    )
    body = single(_quantize_node(), [DType.F32, DType.F32, DType.U8], DType.U8)
    assert body is not None
    sources = [Source(Operand.input(0), site.shape(0)), Source(Operand.output(1), ()), Source(Operand.output(2), ())]
    last = pointwise_launch(body, sources, outputs(0), site.shape(0), site.target)
    return Lowered((ranges, scale, *((last,) if last is not None else ())), scratch=(parts * 8,), tactic="dynamic")


def _quantize_node() -> Node:
    graph = Graph("quantize")
    operands = [graph.add_input(n, TensorType(d, ())) for n, d in (("x", DType.F32), ("scale", DType.F32), ("zero", DType.U8))]
    return graph.add_node("QuantizeLinear", operands, (graph.new_value("y", TensorType(DType.U8, ())),))
