"""ArgMax, ArgMin."""

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY, c_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import Reduction, reduction_tactics
from miniinfer_cli.ir import DType


@lowers("ArgMax", "ArgMin")
def lower_arg_reduction(site: Site) -> Lowered | tuple[Tactic, ...] | None:
    """A reduction to values with their positions."""
    shape, dtype = site.shape(0), site.dtype()
    if dtype in HOST_ONLY:
        return None
    axes = (site.attr("axis", 0) % len(shape),) if shape else ()
    what = arg_reduction(site.node.op, dtype, "i64", last=bool(site.attr("select_last_index", 0)))
    return reduction_tactics(site, what, axes)


def arg_reduction(op: str, dtype: DType, result: str, *, last: bool = False) -> Reduction:
    """The position of the extreme as the C type ``result``."""
    return Reduction(op, c_type(dtype), element_nbytes(dtype), result, 16, last=last)
