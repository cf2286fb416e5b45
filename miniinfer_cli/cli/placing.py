"""Where a plan's nodes would run on a GPU, for a report that nothing depends on."""

import sys
import traceback
from collections.abc import Mapping

from engine_format.records import DimensionRange
from miniinfer_cli.devices.placement import Placement, Unplaced, place
from miniinfer_cli.ir import Graph


def place_for_report(graph: Graph, ranges: Mapping[str, DimensionRange]) -> Placement | Unplaced:
    """``place``, of which a bug is told on standard error and in the report, but takes neither the plan nor the exit code.

    The plan is written by then and sound: whoever builds it wants it, whatever a report on it comes to.
    """
    try:
        return place(graph, ranges)
    except Exception as error:  # nothing else is done here, and the traceback is shown
        traceback.print_exception(error)
        print("miniinfer: this is a bug in the report, not in the plan; please report it with the lines above", file=sys.stderr)
        return Unplaced({}, f"a bug in the report: {type(error).__name__}", refused=False)
