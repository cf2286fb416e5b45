"""Which operations reach the GPU, and that the page about it is true."""

from collections import Counter

from tests.ops_page import PAGE, coverage, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.ops_page"


def test_at_least_150_operations_have_a_lowering() -> None:
    assert Counter(e.way for e in coverage())["kernel"] >= 150


def test_what_runs_on_the_host_is_known() -> None:
    # Strings, sequences, maps, optionals, and what onnx.reference runs; sizes that follow from data alone are none of these.
    assert {e.name for e in coverage() if e.way == "host"} == {
        "CastMap", "CategoryMapper", "ZipMap", "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
        "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence", "Optional", "OptionalGetElement",
        "OptionalHasElement", "OnnxReference",
    }  # fmt: skip
