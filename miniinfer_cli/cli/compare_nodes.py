"""The nodes of both sides of ``compare``, each timed by itself, for the report: what ran now, and what results kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from miniinfer_cli.cli.compare_sides import Case, Ran
from miniinfer_cli.cli.compare_wanted import CompareWanted
from miniinfer_cli.cli.layering import layered
from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Kind, Side, opened_plan, told_of
from miniinfer_cli.comparison.pair_tests import Relation, Verdict


def case_to_look_into(verdicts: Sequence[Verdict]) -> int:
    """The case whose nodes are worth timing: the first whose times differ, or the first of all."""
    differ = (n for n, v in enumerate(verdicts) if v.relation in (Relation.FASTER, Relation.SLOWER))
    return next(differ, 0)


def time_nodes(ran: Sequence[Ran], wanted: CompareWanted, number: int, printer: Printer) -> dict[str, Any]:
    """The nodes of each side that ran, in the case of this number, with stable keys, by the side's letter."""
    found = {}
    for one in ran:
        letter = one.side.letter
        asked = wanted.of("AB".index(letter), {})
        with told_of(one.side), opened_plan(one.plan, asked) as engine:
            feeds = dict(one.feeds[number])
            profile = layered(Bench(asked, engine, {}, {}, feeds, engine.check(feeds)), printer, ceilings=False)
        found[letter] = _described([layer.to_json() for layer in profile.layers])
    return found


def kept_nodes(sides: Sequence[Side]) -> dict[str, Any]:
    """The nodes of each side that is results which have some, by the side's letter."""
    documents = {side.letter: side.results() for side in sides if side.kind is Kind.RESULTS}
    return {letter: _described(nodes) for letter, document in documents.items() if (nodes := document.get("nodes"))}


def with_nodes(found: Mapping[str, Any], nodes: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """The document with the ``nodes`` of its sides, and the inputs that they were timed on."""
    sides = {letter.lower(): {**found[letter.lower()], **described} for letter, described in nodes.items()}
    return {**found, **sides, "nodes_label": case.label}


def _described(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"nodes_sum_ms": sum(node["median_ms"] for node in nodes), "nodes": list(nodes)}
