"""Regions with an anchor (a convolution or a matrix product) and a pointwise epilogue that runs on the fresh result."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from miniinfer_cli.backends.cpu.lowering.pointwise import compile_chain, prepare_chain, prepare_parts
from miniinfer_cli.backends.cpu.routine import Routine, Site, find_lowering, lowers, nbytes_of, padded_nbytes, shape_of
from miniinfer_cli.ir import Array, DType, Node, TensorType, numpy_dtype
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.ops.pointwise import is_pointwise
from miniinfer_cli.ops.products import Call, in_order


@lowers("FusedConv", "FusedMatMul", domain="miniinfer")
def lower_anchored_region(site: Site) -> Routine | None:
    """The anchor's routine writes the region's output (or scratch), and the rest of the body runs over it block by block.

    Where the routine tells what it has done, the rest follows on each part, on the thread that did it: one job for the threads
    instead of two, and the part is still in the cache.
    """
    body = site.node.body
    assert body is not None
    anchors = [n for n in body if not is_pointwise(n)]
    if len(anchors) != 1 or len(anchors[0].outputs) != 1 or len(site.outputs) != 1:
        return None
    (anchor,) = anchors
    inner = _anchor_site(site, anchor)
    lowering = find_lowering(anchor)
    routine = lowering(inner) if inner is not None and lowering is not None else None
    chain = compile_chain(body, site.inputs, skip=anchor)
    if inner is None or routine is None or chain is None:
        return None
    (fresh_type,), (out_type,) = inner.outputs, site.outputs
    dtype, shape, nbytes = numpy_dtype(fresh_type.dtype), shape_of(fresh_type), nbytes_of(fresh_type)
    in_place = fresh_type == out_type and len(body.inputs) in chain.overwritable()
    offset = 0 if in_place else padded_nbytes(nbytes)
    whole = slice(0, math.prod(shape[:-1]))
    number_of = {v: i for i, v in enumerate(body.inputs)}
    sources = [None if v is None else number_of.get(v) for v in anchor.inputs]
    constants = [None if v is None or v.constant is None else site.weights.array(v.constant) for v in anchor.inputs]
    epilogue = prepare_chain(chain, site.threads)
    by_parts = prepare_parts(chain) if routine.prepare_then is not None and shape_of(out_type) == shape else None

    def prepare(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> Call:
        fresh = outputs[0] if in_place else scratch[:nbytes].view(dtype).reshape(shape)
        operands = [c if n is None else inputs[n] for n, c in zip(sources, constants, strict=True)]
        everything = [*inputs, fresh]
        if by_parts is None or routine.prepare_then is None:
            return in_order(routine.prepare(operands, [fresh], scratch[offset:]), epilogue(everything, outputs))
        follow = by_parts(everything, outputs)

        def then(rows: slice) -> Call:
            return epilogue(everything, outputs) if rows == whole else follow(rows)

        return routine.prepare_then(operands, [fresh], scratch[offset:], then)

    return Routine(prepare, scratch_nbytes=offset + routine.scratch_nbytes, tactic=f"{routine.tactic} + {len(chain.stages)}")


def _anchor_site(site: Site, anchor: Node) -> Site | None:
    """The anchor as a site of its own, with the region's constants behind its inputs; its result stays f32 if it is half."""
    body = site.node.body
    assert body is not None
    types = infer_graph(body, list(site.inputs))
    outer = dict(zip(body.inputs, site.handles, strict=True))
    result = types[anchor.output]
    kinds = [None if v is None else types.get(v, v.type) for v in anchor.inputs]
    if not isinstance(result, TensorType) or not result.is_static:
        return None
    if result.dtype.is_half:
        result = replace(result, dtype=DType.F32)
    return Site(
        anchor,
        tuple(k if isinstance(k, TensorType) else None for k in kinds),
        (result,),
        tuple(None if v is None else v.constant or outer.get(v) for v in anchor.inputs),
        site.weights,
        site.threads,
    )
