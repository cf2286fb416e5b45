"""The passes in their order, with the reasons for it, and ``optimize``, which runs them on a graph."""

from collections.abc import Sequence

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.driver import Pass, Phase, Report, run_phases
from miniinfer_cli.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from miniinfer_cli.passes.fold_constants import fold_constants
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes

# Levels: 0 what is needed to run at all, 1 cleaning and folding, 2 layouts and fusion (the default), 3 costly searches.
PHASES: tuple[Phase, ...] = (
    # Fewer nodes first: everything below searches what is left.
    Phase(
        "simplify",
        (
            Pass(remove_dead_nodes, 0),
            Pass(fold_constants, 1),
            Pass(eliminate_common_subexpressions, 1),
        ),
    ),
)


def optimize(
    graph: Graph,
    level: int = 2,
    disabled: Sequence[str] = (),
    plugins: Sequence[Pass] = (),
    *,
    check: bool = False,
) -> Report:
    """Rewrites ``graph`` in place into one that computes the same numbers faster, and reports what was done.

    ``level`` is 0 to 3; ``disabled`` are names of passes to leave out; ``plugins`` run with the first phase, after its own
    passes; ``check`` verifies the graph after every pass. Raises UsageError for an unknown name, PassError for our bugs.
    """
    first, *others = PHASES
    return run_phases(graph, [Phase(first.name, (*first.passes, *plugins)), *others], level=level, disabled=disabled, check=check)


def pass_names() -> tuple[str, ...]:
    """The names that ``disabled`` may hold, in order of first run."""
    return tuple(dict.fromkeys(p.name for phase in PHASES for p in phase.passes))
