"""Mutants of joins: a family that finds none, and graphs that give other results than the nodes in whose place they stand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from miniinfer_cli.backends.cuda.contract import join as register
from miniinfer_cli.backends.cuda.contract.join import Join
from miniinfer_cli.ir import TensorType
from tests.mutants.mutant import AWAY, Function, Note
from tests.mutants.named_tests import files_of, module_of
from tests.mutants.wrong_launches import changed_value

JOINS = "tests/backends/cuda/joins"


class Joins:
    """One entry for each family."""

    name = "join"
    ways: tuple[str, ...] = (AWAY, "scaled", "changed")
    may_not_apply: frozenset[str] = frozenset()

    def entries(self) -> dict[str, tuple[str, ...]]:
        return {name: files_of(JOINS, module_of(find)) for name, find in register.families().items()}

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        register.families()
        register._FAMILIES[entry] = make(register._FAMILIES[entry])

    def did(self, answer: Any) -> bool:
        return bool(answer)

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Function:
        def find(*arguments: Any) -> list[Join]:
            found = function(*arguments)
            if found:
                applied()
            return [] if way == AWAY else [replace(join, graph=_spoiled(join, way)) for join in found]

        return find


def _spoiled(join: Join, way: str) -> Any:
    graph = join.graph.copy()
    kind = graph.outputs[0].type
    assert isinstance(kind, TensorType)
    graph.set_outputs([changed_value(graph, way, graph.outputs[0], kind), *graph.outputs[1:]])
    return graph
