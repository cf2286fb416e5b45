"""Processes that are watched end in time, whatever they do, and none waits for another's output."""

import sys
import time

import pytest

from tests.gpu import sanitize
from tests.gpu.watched_processes import Ended, run_watched

WAITS = "import time\nprint('begins', flush=True)\ntime.sleep(600)\n"


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_what_does_not_end_is_ended_and_keeps_what_it_printed():
    child = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {WAITS!r}]).wait()\n"
    started = time.monotonic()
    ended = run_watched([python(child), python("print('done'); raise SystemExit(3)"), python(WAITS)], 2)
    assert time.monotonic() - started < 30
    assert ended[0].code is None and ended[2] == Ended("begins\n", None)
    assert ended[1] == Ended("done\n", 3)


def test_much_output_of_a_later_one_is_all_there():
    ended = run_watched([python("import time; time.sleep(0.5)"), python("print('x' * 300_000)")], 60)
    assert ended == [Ended("", 0), Ended("x" * 300_000 + "\n", 0)]


def test_a_worker_that_was_ended_is_named_with_its_case(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    printed = "========= COMPUTE-SANITIZER\nbegins resnet50_f32\nbegins test_add\n"
    whole = printed + "2 of 9 cases, 0 wrong\n========= ERROR SUMMARY: 0 errors\n"
    asked = []

    def run(commands: list[list[str]], seconds: float) -> list[Ended]:
        asked.append(([c[-1] for c in commands], seconds))
        return [Ended(whole, 0), Ended(printed, None)]

    monkeypatch.setattr(sanitize, "run_watched", run)
    arguments = ["--tool", "racecheck", "--workers", "2", "--match", "add", "--seconds", "5", "--case-seconds", "7"]
    assert sanitize.main(arguments) == 1
    assert asked == [(["0/2", "1/2"], 12.0)]
    out = capsys.readouterr().out
    assert "racecheck: a worker was ended after 12 s, in test_add" in out
    assert "racecheck: 1 of 2 workers with complaints" in out
    assert "begins" not in out
