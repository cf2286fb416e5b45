"""Which record a table gives for a signature, and what it tells of those that could not be taken."""

from engine_format import RecordChooser, TacticRecord
from miniinfer_cli.backends.choosing import Chooser, Found
from miniinfer_cli.backends.cuda.choice.table import RecordTable


def record(m: int, key: str = "own", **fields: object) -> TacticRecord:
    return TacticRecord(f"MatMul f16[{m},8] f16[8,4]* -> f16[{m},4]", key, "maker", **fields)  # type: ignore[arg-type]


def found(table: RecordTable, m: int) -> list[tuple[str, Chooser]]:
    return [(f.record.key, f.chooser) for f in table.find(record(m).signature)]


def test_the_plan_comes_before_the_cache_and_exact_before_near() -> None:
    table = RecordTable([record(64, "a"), record(100, "b")], [record(64, "c"), record(90, "d")])
    assert found(table, 64) == [("a", Chooser.PLAN), ("c", Chooser.CACHE)]
    assert found(table, 90) == [("d", Chooser.CACHE)]
    assert found(table, 78) == [
        ("a", Chooser.PLAN_NEAR),
        ("b", Chooser.PLAN_NEAR),
        ("d", Chooser.CACHE_NEAR),
        ("c", Chooser.CACHE_NEAR),
    ]


def test_near_is_up_to_twice_as_many_rows() -> None:
    table = RecordTable([record(64)])
    assert [bool(found(table, m)) for m in (31, 32, 64, 128, 129)] == [False, True, True, True, False]


def test_what_the_heuristic_does_best_chooses_nothing_but_keeps_near_ones_away() -> None:
    ways = {"algorithm": b"1"}
    table = RecordTable(
        [record(64), *(record(m, chosen_by=RecordChooser.HEURISTIC, opaque=o) for m, o in ((96, {}), (95, ways)))]
    )
    assert found(table, 96) == []
    assert found(table, 95) == [("own", Chooser.PLAN)]  # how the library does it again
    assert found(table, 97) == [("own", Chooser.PLAN_NEAR)]


def test_records_passed_over_are_told_once_for_each_reason() -> None:
    table = RecordTable([record(64), record(65)], [record(1)])
    for _ in range(2):
        table.pass_over(Found(record(64), Chooser.PLAN), "stale")
        table.pass_over(Found(record(65), Chooser.PLAN), "stale")
        table.pass_over(Found(record(1), Chooser.CACHE), "refused")
        table.pass_over(Found(record(2), Chooser.PLAN_NEAR), "stale")
    assert table.notes == (
        "2 tactic records of the plan passed over (stale): miniinfer tune makes new ones",
        "1 tactic record of the timing cache passed over (refused): miniinfer tune makes new ones",
    )
    assert RecordTable().notes == ()
