"""How long a GPU takes for a graph at least, told with no GPU at hand: what its steps compute and move, under known ceilings."""

from collections.abc import Mapping

from engine_format.records import DimensionRange
from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.backends.cuda.contract.program import HostStep
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.devices.placement import MOST_BRANCHED, optimal_types
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.branches import BranchedGraphs

H200 = Ceilings(
    device="an H200",
    tflops={
        **{f"matrix {numbers}": peak for numbers, peak in
           {"bf16": 773.0, "f16": 752.0, "tf32": 401.0, "f32": 49.0, "f64": 59.0, "i8": 1404.0, "f8e4m3fn": 1404.0}.items()},
        "vector f32": 65.0, "vector f64": 33.0,
    },
    memory_gbps=4221.0, cache_nbytes=50 << 20, cache_gbps=6760.0, step_us=0.5,
)  # fmt: skip
"""As it was measured (docs/gpu-results.md), but for 8-bit floats, whose products are taken to be as fast as those of integers."""
_HOST_STEP_MS = 0.03  # a step that the device waits for, with its copies


def estimated_ms(graph: Graph, ranges: Mapping[str, DimensionRange], *, tf32: bool = True) -> float:
    """The least milliseconds of ``graph`` at its optimal sizes on one H200: each step by its operations, its bytes, or as a
    launch.

    Of several programs that small inputs choose among, the longest. Raises ModelError where the sizes do not go through it.
    """
    types = optimal_types(graph, ranges)
    times = []
    for branched in BranchedGraphs(graph).possible(types, MOST_BRANCHED) or (graph,):
        total = 0.0
        for step in make_program(branched, types, Target(tf32=tf32)).steps:
            if isinstance(step, HostStep):
                total += _HOST_STEP_MS
                continue
            launch_ms = (H200.step_us or 0.0) * len(step.actions) / 1e3
            roofline = H200.roofline(step.estimate, step.rate, weights_nbytes=step.weights_nbytes)
            total += max(launch_ms, 0.0 if roofline is None else roofline.least_ms)
        times.append(total)
    return max(times)
