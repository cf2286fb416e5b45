"""What a graph says of its speed with no run, for ``inspect --lint`` and for the diagnosis of ``profile``."""

from collections.abc import Mapping, Sequence
from typing import Any

from miniinfer_cli.cli.report import Printer
from miniinfer_cli.diagnosis.findings import Remark
from miniinfer_cli.diagnosis.heavy import Types
from miniinfer_cli.diagnosis.lint import HostStep, Subject, lint
from miniinfer_cli.diagnosis.variants import BuiltAs, fixed_nodes
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import Graph, Type
from miniinfer_cli.ops import infer_graph
from miniinfer_cli.wording import as_flags


def lint_graph(
    graph: Graph, inputs: Sequence[Type | None] | None, options: Mapping[str, Any], host_steps: Sequence[HostStep] = ()
) -> tuple[Remark, ...]:
    """The remarks on an optimized graph. ``inputs``: the types that its inputs have in a run, None where none go through it.

    ``options``: those that a plan records of its build. ``host_steps``: of a GPU.
    """
    built = BuiltAs.of(options)
    types: Types = {}
    fixed = None
    try:
        if inputs is not None:
            types = infer_graph(graph, inputs)
            fixed = fixed_nodes(graph, inputs, built)
    except MiniinferError:
        pass  # the sizes do not go through the model: what is told needs none
    return lint(Subject(graph, types, built.level, built.disabled, built.tf32, host_steps, fixed))


def print_lint(printer: Printer, remarks: Sequence[Remark]) -> None:
    """The remarks, each with its numbers and what may be done."""
    printer.section(f"Lint: {len(remarks)} remark{'s' * (len(remarks) != 1)}")
    for remark in remarks:
        where = " (on a GPU)" if remark.on == "gpu" else ""
        printer.line(f"{remark.rule}{where}: {remark.text}")
        printer.line(f"  {'; '.join(map(str, remark.evidence))}")
        printer.line(f"  -> {remark.advice.what}: {as_flags(remark.advice.how)}")
