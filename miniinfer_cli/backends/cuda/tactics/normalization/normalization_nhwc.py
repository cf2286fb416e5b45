"""GroupNormalizationNHWC of ours."""

import math

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.tactics.normalization.normalization import group_by_statistics
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import real_dtype
from miniinfer_cli.ops.registry import OURS


@lowers("GroupNormalizationNHWC", domain=OURS)
def lower_group_normalization_nhwc(site: Site) -> Lowered | None:
    """Statistics of each group, then each element by them."""
    shape = site.shape(0)
    if math.prod(shape) == 0:
        return Lowered(())
    groups = site.attr("num_groups")
    view = (shape[0], math.prod(shape[1:-1]), groups, shape[-1] // groups)
    return group_by_statistics(site, view, (1, 3), 2, real_dtype(site.dtype()))
