"""Adds compiled kernels for GPU architectures to a plan; takes no GPU."""

from collections.abc import Sequence

from engine_format import Plan
from miniinfer_cli.backends.cuda.target_sections import compile_section
from miniinfer_cli.errors import UsageError
from miniinfer_cli.planning.branches import Variants
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.placement import MOST_VARIANTS, optimal_types


def with_targets(plan: Plan, archs: Sequence[int]) -> Plan:
    """The plan with a section of compiled kernels for each architecture (90 for sm_90).

    The kernels are those of the optimal sizes and of a ladder of others, for the branches that small inputs may choose. Raises
    KernelCompileError, ModelError when the optimal sizes do not go through the graph.
    """
    graph = thaw(plan)
    types = optimal_types(graph, {r.name: r for r in plan.ranges})
    variants = list(Variants(graph).possible(types, MOST_VARIANTS)) or [graph]
    for arch in archs:
        plan = plan.with_target(compile_section(variants, types, arch))
    return plan


def arch_of(text: str) -> int:
    """90 for ``sm_90``. Raises UsageError for what is no architecture that kernels are compiled for."""
    number = text.removeprefix("sm_")
    if not text.startswith("sm_") or not number.isdecimal() or int(number) < 80:
        raise UsageError(f"architecture {text!r} is not of the form sm_90, or older than sm_80", hint="sm_80, sm_90, sm_100 ...")
    return int(number)
