"""Spans of a process: how they nest, and that the functions whose spans a first result consists of are still there."""

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.benchmarks.first_result import FUNCTIONS, line_of
from tests.benchmarks.spans import Recorder

MODULE = """
import threading

def outer():
    for _ in range(2):
        Inner().work()
    thread = threading.Thread(target=Inner().work, name="other")
    thread.start()
    thread.join()

class Inner:
    def work(self): ...
"""


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_is_there(function: str) -> None:
    module, _, path = function.partition(":")
    found = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)


def test_spans_nest_and_threads_have_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spanned_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("spanned_module:outer", "spanned_module:Inner.work", "spanned_module:nowhere")
    with Recorder(names, time.perf_counter(), least_import=0.0) as recorder:
        import spanned_module

        spanned_module.outer()
    monkeypatch.delitem(sys.modules, "spanned_module")
    main = recorder.roots[threading.current_thread().name]
    assert list(main.within) == ["import spanned_module", "outer"]
    outer = main.within["outer"]
    assert (outer.count, {n: s.count for n, s in outer.within.items()}) == (1, {"Inner.work": 2})
    assert outer.seconds >= outer.within["Inner.work"].seconds > 0
    assert {n: s.count for n, s in recorder.roots["other"].within.items()} == {"Inner.work": 1}
    assert [line.split()[3:] for line in recorder.text(0.0).splitlines()[-2:]] == [[], ["Inner.work"]]
    assert "Inner.work x2" in recorder.text(0.0)


def test_a_line_has_medians_and_the_range() -> None:
    told = line_of("m", "cold result, here", [[0.9, 0.5, 0.3, 0.1], [1.1, 0.6, 0.4, 0.1], [1.0, 0.4, 0.5, 0.1]])
    assert told == "m cold result, here: 1.000 (0.900 to 1.100): opening 0.500, program 0.400, running 0.100"
