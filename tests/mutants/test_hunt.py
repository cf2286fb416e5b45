"""The hunt for mutants finds a planted survivor, and reports none that a test kills."""

import json
import subprocess
import sys
from pathlib import Path

from tests.mutants.families import FAMILIES
from tests.mutants.hunt import Outcome, Record, _noting
from tests.mutants.mutant import Mutant
from tests.mutants.named_tests import ROOT

REGISTER = """
FUNCTIONS = {
    "watched": lambda x: 2 * x,
    "unwatched": lambda x: 2 * x,
    "read": lambda x: 2 * x,
    "unused": lambda x: 2 * x,
    "deadly": lambda x: 2 * x,
}
"""
TESTS = """
import numpy as np
from register import FUNCTIONS

def test_watched():
    np.testing.assert_array_equal(FUNCTIONS["watched"](np.ones(3)), [2, 2, 2])

def test_unwatched():
    assert FUNCTIONS["unwatched"](np.ones(3)).shape == (3,)

def test_read():
    assert str(FUNCTIONS["read"](np.ones(3))) == "[2. 2. 2.]"

def test_deadly():
    assert FUNCTIONS["deadly"](np.ones(3)).shape == (3,)
"""
HUNT = """
import json, os, sys
from register import FUNCTIONS
from tests.mutants.forked_tests import with_collected_tests
from tests.mutants.hunt import hunt
from tests.mutants.mutant import mutants_of

class Planted:
    name, ways, may_not_apply = "planted", ("away", "scaled", "others"), frozenset({"others"})

    def entries(self):
        return {name: ("test_planted.py",) for name in FUNCTIONS}

    def substitute(self, entry, make):
        FUNCTIONS[entry] = make(FUNCTIONS[entry])

    def did(self, answer):
        return answer is not None

    def changed(self, entry, way, function, applied):
        def call(x):
            if way == "others":
                return function(x)
            applied()
            if FUNCTIONS["deadly"] is call:
                os._exit(3)
            return function(x) * 1.01 if way == "scaled" else x
        return call

families = {"planted": Planted()}
outcomes = {}
code = with_collected_tests(
    ["test_planted.py"],
    lambda items: hunt(families, mutants_of(families), items, 2, lambda o: outcomes.update({o.mutant: (o.state, o.why)})),
)
print(json.dumps([code, outcomes]))
"""


def test_a_planted_survivor_is_found_and_what_is_killed_is_not_reported(tmp_path: Path) -> None:
    for name, text in (("register", REGISTER), ("test_planted", TESTS), ("run_hunt", HUNT)):
        (tmp_path / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "run_hunt.py"], cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    code, outcomes = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    test = "test_planted.py::test_{}".format
    assert outcomes == {
        "planted/watched/away": ["killed", test("watched")],
        "planted/watched/scaled": ["killed", test("watched")],
        "planted/watched/others": ["none", "nothing to change"],
        "planted/unwatched/away": ["survived", "1 tests reach it and pass"],
        "planted/unwatched/scaled": ["survived", "1 tests reach it and pass"],
        "planted/unwatched/others": ["none", "nothing to change"],
        "planted/read/away": ["killed", test("read")],
        "planted/read/scaled": ["survived", outcomes["planted/read/scaled"][1]],
        "planted/read/others": ["none", "nothing to change"],
        **{
            f"planted/unused/{way}": ["survived", "no test of test_planted.py reaches it"] for way in ("away", "scaled", "others")
        },
        **{f"planted/deadly/{way}": ["survived", outcomes[f"planted/deadly/{way}"][1]] for way in ("away", "scaled")},
        "planted/deadly/others": ["none", "nothing to change"],
    }
    assert outcomes["planted/read/scaled"][1].startswith(f"no numbers differ, though {test('read')} fails: AssertionError")
    assert outcomes["planted/deadly/scaled"][1].startswith("the tests died")


def test_what_was_killed_is_not_run_again(tmp_path: Path) -> None:
    record = Record(tmp_path / "kept" / "outcomes.json", fresh=False)
    for name, state in (("a", "killed"), ("b", "survived"), ("c", "none")):
        record.add(Outcome(f"f/{name}/away", state, ""))
    for fresh, done in ((False, [True, False, True, False]), (True, [False] * 4)):
        again = Record(tmp_path / "kept" / "outcomes.json", fresh=fresh)
        assert [again.is_done(Mutant("f", name, "away", ())) for name in "abcd"] == done


def test_what_is_watched_keeps_its_module() -> None:
    """By which a tactic is told to be of the lowering that listed it, while both are watched."""
    tests: dict[str, None] = {}
    watched = _noting(listing, FAMILIES["cuda"], tests, ["this"])
    assert (watched(), watched.__module__, tests) == (("a", "b"), __name__, {"this": None})


def listing() -> tuple[str, str]:
    return "a", "b"
