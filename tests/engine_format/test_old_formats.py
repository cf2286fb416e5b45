"""Plans of every format so far, as they were written then: each still opens, or is refused by number.

They were made from the plans of ``samples`` as they were at the time. A file never changes once it is committed.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from engine_format import DType, GraphRecord, OptionalSpec, PlanError, SequenceSpec, TensorSpec, ValueRecord, read_plan
from engine_format.encode import format_of
from engine_format.layout import FORMAT_VERSION
from tests.engine_format.samples import chosen_size_plan, file_bytes, rich_plan

OLD = Path(__file__).parent / "old"


def test_there_is_a_plan_of_every_format():
    assert sorted(p.name for p in OLD.iterdir()) == [f"format-{n}.plan" for n in range(1, FORMAT_VERSION + 1)]


def test_format_1_opens_and_is_still_written_byte_by_byte(tmp_path: Path):
    with read_plan(OLD / "format-1.plan") as plan:
        plan.check()
        assert plan.graph == rich_plan().graph
    assert file_bytes(rich_plan(), tmp_path) == (OLD / "format-1.plan").read_bytes()


def test_format_2_opens_and_is_written_where_it_is_needed(tmp_path: Path):
    with read_plan(OLD / "format-2.plan") as plan:
        plan.check()
        assert plan.graph == chosen_size_plan().graph
        assert plan.ranges == chosen_size_plan().ranges
    assert file_bytes(chosen_size_plan(), tmp_path) == (OLD / "format-2.plan").read_bytes()


@pytest.mark.parametrize("place", ["value", "body", "branch", "attribute", "element"])
def test_one_chosen_size_anywhere_makes_format_2(place: str):
    plan, spec = rich_plan(), TensorSpec(DType.F32, (2, "min(batch,8)"))
    inner = GraphRecord("g", (ValueRecord("v", spec),), (), (), (), ())
    node = plan.graph.nodes[0]
    nodes = {
        "body": replace(node, body=inner),
        "branch": replace(node, graphs={"then_branch": inner}),
        "attribute": replace(node, attrs={"types": (1, OptionalSpec(spec))}),
    }
    kind = SequenceSpec(OptionalSpec(spec)) if place == "element" else spec
    values = plan.graph.values if place in nodes else (*plan.graph.values, ValueRecord("extra", kind))
    graph = replace(plan.graph, values=values, nodes=(nodes.get(place, node), *plan.graph.nodes[1:]))
    assert (format_of(plan), format_of(replace(plan, graph=graph))) == (1, 2)


def test_the_next_format_is_refused_by_number(tmp_path: Path):
    data = bytearray((OLD / "format-1.plan").read_bytes())
    data[8] = FORMAT_VERSION + 1
    (tmp_path / "next.plan").write_bytes(data)
    with pytest.raises(PlanError, match="the plan has format 3, and this release reads up to 2") as caught:
        read_plan(tmp_path / "next.plan")
    assert caught.value.hint == "upgrade miniinfer, or build the plan again with this release"
