"""NonMaxSuppression."""

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Argument, Bound, Fill, Kernel, Launch, Lowered, Operand
from miniinfer_cli.backends.cuda.tactics.sorting.sorting import DESCENDING_NAN_LAST, Rows, sort_rows

_TILE = 256  # as in detection.cu
_COUNT = Operand.count(0)


@lowers("NonMaxSuppression")
def lower_non_max_suppression(site: Site) -> Lowered | None:
    """Each class sorted by score, a block for each that keeps what nothing kept overlaps, and the triples in order."""
    batch, classes, n = site.shape(1)
    known = site.known(2)
    limit = n if known is None else min(n, max(int(known.reshape(-1)[0]), 0))
    if not site.has(2):
        limit = 0
    rows = batch * classes
    bounds = {0: Bound((rows * limit, 3), 0)}
    if rows * limit == 0:
        return Lowered((Fill(_COUNT, 0, 8),), bounds=bounds)
    sorting = sort_rows(Rows(Operand.input(1), site.dtype(1), rows, n, 1, n, DESCENDING_NAN_LAST), site.target, outputs=None)
    first = len(sorting.scratch)
    kept, counts, offsets = (Operand.scratch(first + i) for i in range(3))
    given = [site.operand(i) for i in (2, 3, 4)]
    keep = (
        Operand.input(0), Operand.input(1), sorting.items, np.int32(classes), np.int32(n), np.int32(sorting.run), *given,
        np.int32(site.attr("center_point_box", 0)), np.int32(limit), kept, counts,
    )  # fmt: skip
    defines = Rows(Operand.input(1), site.dtype(1), 1, 1, 1, 1, 0).defines()

    def launch(name: str, grid: int, block: int, arguments: tuple[Argument, ...]) -> Launch[Operand]:
        return Launch(Kernel(name, "detection.cu", defines), (grid,), (block,), arguments)

    write = (kept, counts, offsets, np.int32(rows), np.int32(classes), np.int32(limit), Operand.output(0))
    actions = (
        *sorting.actions,
        launch("nms_keep", rows, _TILE, keep),
        launch("nms_offsets", 1, _TILE, (counts, offsets, np.int32(rows), _COUNT)),
        launch("nms_write", min(rows, site.target.multiprocessors * 4), _TILE, write),
    )
    return Lowered(actions, (*sorting.scratch, rows * limit * 4, rows * 4, rows * 8), bounds=bounds, tactic="nms")
