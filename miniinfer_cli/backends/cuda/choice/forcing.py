"""That every tactic that a user forces was forced on something."""

from collections.abc import Iterator

from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, HostStep
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph
from miniinfer_cli.wording import Wording

_SHOWN = 5  # names in a hint


def expect_forced(program: CudaProgram, policy: Policy) -> None:
    """Raises UsageError for a forced tactic whose node is no step of the program, was not replaced, and is none made later."""
    if not policy.forced:
        return
    steps = [s.label for s in program.steps if s.choice is not None]
    known = {*steps, *program.replaced}
    for step in program.steps:
        if isinstance(step, HostStep):
            known.update(_names_in([*step.node.graphs.values(), *([step.node.body] if step.node.body is not None else [])]))
    for name, key in policy.forced.items():
        if name not in known:
            more = ", ..." if len(steps) > _SHOWN else ""
            what = "no step on the device has this name"
            raise UsageError(
                Wording(f"tactics: {name!r}: {what}", flags=f"--tactic {name}={key}: {what}"),
                hint=f"profile lists the steps: {', '.join(steps[:_SHOWN])}{more}",
            )


def _names_in(graphs: list[Graph]) -> Iterator[str]:
    for node in (n for graph in graphs for n in graph):
        yield node.name
        yield from _names_in([*node.graphs.values(), *([node.body] if node.body is not None else [])])
