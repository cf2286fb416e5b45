"""Where, which only moves elements; the other operations on truth values are in pointwise.py."""

from dataclasses import replace

from miniinfer_cli.backends.cuda.codegen.body import single
from miniinfer_cli.backends.cuda.codegen.kernel import Source, pointwise_launch
from miniinfer_cli.backends.cuda.codegen.pointwise import launched
from miniinfer_cli.backends.cuda.contract.site import Site, lowers, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Operand, outputs
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.ir import DType, TensorType

_BITS = {1: DType.U8, 2: DType.U16, 4: DType.U32, 8: DType.U64}


@lowers("Where")
def lower_where(site: Site) -> Lowered | None:
    """A choice between elements as bits; numbers of 16 bytes as two halves, along an axis more."""
    if site.out_dtype() is DType.STR:
        return None
    types = [site.input(i) for i in range(3)]
    result = site.output()
    nbytes = element_nbytes(result.dtype)
    if nbytes == 16:
        types = [_with_axis(types[0], 1), _with_axis(types[1], 2), _with_axis(types[2], 2)]
        result, nbytes = _with_axis(result, 2), 8
    bits = _BITS[nbytes]
    types = [types[0], *(replace(t, dtype=bits) for t in types[1:])]
    body = single(site.node, [t.dtype for t in types], bits)
    if body is None:
        return None
    sources = [Source(Operand.input(i), static_shape(t)) for i, t in enumerate(types)]
    launch = pointwise_launch(body, sources, outputs(0), static_shape(result), site.target)
    return launched(launch, types, range(3), [replace(result, dtype=bits)])


def _with_axis(kind: TensorType, size: int) -> TensorType:
    return TensorType(kind.dtype, (*static_shape(kind), size))
