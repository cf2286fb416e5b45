"""ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceSumSquare."""

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import Reduction, reduction_tactics
from miniinfer_cli.ir import DType

# Kind, what is done to each element, what to the total.
_KINDS = {
    "ReduceSum": ("Sum", "", ""),
    "ReduceMean": ("Sum", "", "w / n"),
    "ReduceProd": ("Prod", "", ""),
    "ReduceMax": ("Max", "", ""),
    "ReduceMin": ("Min", "", ""),
    "ReduceL1": ("Sum", "math::absolute(x)", ""),
    "ReduceL2": ("Sum", "math::multiply(x, x)", "math::sqrt(w)"),
    "ReduceSumSquare": ("Sum", "math::multiply(x, x)", ""),
    "ReduceLogSum": ("Sum", "", "math::log(w)"),
    "ReduceLogSumExp": ("LogSumExp", "", ""),
}


@lowers(*_KINDS)
def lower_reduction(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """Stages of reduce.cu; the axes must be known."""
    axes = reduced_axes(site)
    if axes is None or site.dtype() in HOST_ONLY:
        return None
    return reduction_tactics(site, reduction_of(site.node.op, site.dtype()), axes)


def reduction_of(op: str, dtype: DType, result: DType | None = None) -> Reduction:
    """ONNX's reduction ``op`` over elements of ``dtype``, with results of ``result``, or of ``dtype``."""
    kind, before, after = _KINDS[op]
    real = 8 if computed_type(dtype) != "f32" else 4
    part_nbytes = 2 * real if kind == "LogSumExp" else 4 if dtype.is_half or dtype.bits < 8 else element_nbytes(dtype)
    return Reduction(kind, c_type(dtype), element_nbytes(dtype), c_type(result or dtype), part_nbytes, before, after)


def reduced_axes(site: Site) -> tuple[int, ...] | None:
    """The axes that a reduction's inputs and attributes ask for, none negative; None when they are not known."""
    rank = len(site.shape(0))
    every = () if site.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    if not site.has(1) or site.shape(1) == (0,):
        return every
    contents = site.known(1)
    if contents is None:
        return None
    if not contents.size:
        return every
    return tuple(sorted({int(a) % rank for a in contents.reshape(-1)})) if rank else ()
