"""Plans of every format so far, as they were written then: each still opens, or is refused by number.

They were made from ``rich_plan`` as it was at the time. A file never changes once it is committed.
"""

from pathlib import Path

import pytest

from engine_format import PlanError, read_plan
from engine_format.layout import FORMAT_VERSION
from tests.engine_format.samples import file_bytes, rich_plan

OLD = Path(__file__).parent / "old"


def test_there_is_a_plan_of_every_format():
    assert sorted(p.name for p in OLD.iterdir()) == [f"format-{n}.plan" for n in range(1, FORMAT_VERSION + 1)]


def test_format_1_opens_and_is_still_written_byte_by_byte(tmp_path: Path):
    with read_plan(OLD / "format-1.plan") as plan:
        plan.check()
        assert plan.graph == rich_plan().graph
    assert file_bytes(rich_plan(), tmp_path) == (OLD / "format-1.plan").read_bytes()


def test_the_next_format_is_refused_by_number(tmp_path: Path):
    data = bytearray((OLD / "format-1.plan").read_bytes())
    data[8] = FORMAT_VERSION + 1
    (tmp_path / "next.plan").write_bytes(data)
    with pytest.raises(PlanError, match="the plan has format 2, and this release reads up to 1") as caught:
        read_plan(tmp_path / "next.plan")
    assert caught.value.hint == "upgrade miniinfer, or build the plan again with this release"
