"""How much constants have grown since the model was read: nothing of a few hundred bytes becomes a plan that fills a disk."""

from miniinfer_cli.ir import Graph, Value
from miniinfer_cli.limits import CONSTANT_BYTES


def count_constants(graph: Graph) -> None:
    """Tells the budget of ``graph`` what the constants of it, and of all graphs inside it, take, each counted once."""
    handles = dict.fromkeys(v.constant for v in graph.all_constants() if v.constant is not None)
    held = sum(h.held_nbytes for h in handles) if graph.budget.model_nbytes is None else 0
    graph.budget.recount(sum(h.stored_nbytes for h in handles), held)


def count_constants_again(graph: Graph) -> None:
    """``count_constants`` where room is scarce: what passes removed since the last time gives some."""
    budget = graph.budget
    if budget.model_nbytes is None or 2 * budget.grown > budget.allowed:
        count_constants(graph)


def expect_modest_growth(graph: Graph) -> None:
    """Raises ModelError, which names the largest constant, where those of ``graph`` take more than its budget allows.

    Folding keeps to the budget. Passes that join or turn weights have as much again as the model has: some weights are there
    in two forms then.
    """
    count_constants(graph)
    budget = graph.budget
    if budget.grown <= budget.allowed + (budget.model_nbytes or 0):
        return
    largest = max(graph.all_constants(), key=_stored_nbytes)
    readers = "".join(f", read by node {n.name!r}" for n in largest.users[:1])
    what = f"constant {largest.name!r} is {largest.type}{readers}, and a plan holds it written out"
    raise budget.limits.refusal(CONSTANT_BYTES, f"{what}; what constants take beyond those of the model", budget.grown)


def _stored_nbytes(value: Value) -> int:
    return 0 if value.constant is None else value.constant.stored_nbytes
