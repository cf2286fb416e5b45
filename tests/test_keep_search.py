"""The search for nodes that have to keep f32 finds those that are at fault, whatever the model is: it asks a question alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniinfer_cli.verification.keep_search import Searched, search_kept

NAMES = [f"n{i}" for i in range(200)]


def search(faults, names=NAMES, required=(), most=64, deadline=None, asked=None):
    """The search where exactly ``faults`` have to keep f32; ``asked`` gets each set that was tried."""

    def holds(kept):
        if asked is not None:
            asked.append(kept)
        return set(faults) <= kept

    end = time.monotonic() + 60 if deadline is None else deadline
    return search_kept(names, holds, required, most, end, lambda trials, kept: None)


def test_nothing_is_kept_where_nothing_is_at_fault():
    assert search(()) == Searched((), True, 1)


@given(st.sets(st.sampled_from(NAMES), max_size=6))
def test_those_at_fault_are_found_and_no_others(faults):
    found = search(faults)
    assert found.found
    assert found.kept == tuple(n for n in NAMES if n in faults)
    assert found.trials <= 2 + 10 * len(faults)  # halvings of 200, one more to see, one to let go


def test_what_is_required_is_kept_and_not_let_go():
    assert search({"n5"}, required=("n9",)).kept == ("n5", "n9")
    assert search((), required=("n9",)) == Searched(("n9",), True, 1)


def test_a_node_that_others_make_needless_is_let_go():
    """n3 is found first, for n7 alone does not show until n3 is kept; with n7 and n8 kept it may go."""

    def holds(kept):
        return {"n7", "n8"} <= kept or ("n3" in kept and set(NAMES[9:]) <= kept)

    found = search_kept(NAMES, holds, (), 64, time.monotonic() + 60, lambda trials, kept: None)
    assert found.found and found.kept == ("n7", "n8")


def test_it_gives_up_at_the_most_nodes_at_the_deadline_and_where_f32_is_no_way_out():
    assert not search({"n1", "n2", "n3"}, most=2).found
    assert not search({"n1"}, deadline=0.0).found
    assert not search({"not there"}).found


def test_a_question_without_a_steady_answer_ends():
    answers = iter([False, True])
    found = search_kept(["a"], lambda kept: next(answers, False), (), 64, time.monotonic() + 60, lambda trials, kept: None)
    assert not found.found


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_names(count):
    assert search({NAMES[count - 1]}, names=NAMES[:count]).kept == (NAMES[count - 1],)
