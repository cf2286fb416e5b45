"""GlobalAveragePool, GlobalMaxPool, GlobalLpPool, and GlobalAveragePoolNHWC of ours: reductions over the spatial axes."""

from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.types import computed_type
from miniinfer_cli.backends.cuda.tactics.reduction.reduction import reduction_of
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import Reduction, reduction_tactics
from miniinfer_cli.ops import OURS


@lowers("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
@lowers("GlobalAveragePoolNHWC", domain=OURS)
def lower_global_pool(site: Site) -> Lowered | tuple[Tactic, ...]:
    """Stages of reduce.cu."""
    rank = len(site.shape(0))
    axes = range(1, rank - 1) if site.node.op.endswith("NHWC") else range(2, rank)
    return reduction_tactics(site, _reduction(site), tuple(axes))


def _reduction(site: Site) -> Reduction:
    dtype = site.dtype()
    match site.node.op, int(site.attr("p", 2)):
        case "GlobalMaxPool", _:
            return reduction_of("ReduceMax", dtype)
        case "GlobalLpPool", 1:
            return reduction_of("ReduceL1", dtype)
        case "GlobalLpPool", 2:
            return reduction_of("ReduceL2", dtype)
        case "GlobalLpPool", p:
            order = f"({computed_type(dtype)}){p}"
            before, after = f"math::power(math::absolute(x), {order})", f"math::power(w, 1 / {order})"
            return replace(reduction_of("ReduceSum", dtype), before=before, after=after)
    return reduction_of("ReduceMean", dtype)
