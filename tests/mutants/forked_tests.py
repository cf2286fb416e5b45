"""Tests collected once and run in forked children, each of which may first change the program that it tests."""

import json
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Answer = dict[str, Any]


def with_collected_tests(files: Sequence[str], work: Callable[[list[pytest.Item]], None]) -> int:
    """Collects the tests of ``files``, hands them to ``work``, and returns pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["-q", "--capture=no", "--no-header", "--no-summary", f"--basetemp={folder}/tests", *files]
        return int(pytest.main(options, plugins=[_Collected(work)]))


class _Collected:
    def __init__(self, work: Callable[[list[pytest.Item]], None]) -> None:
        self._work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Drawn examples are the same in every child, and one that fails is neither made small nor kept."""
        from hypothesis import Phase, settings  # not before pytest, which rewrites its assertions

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", deadline=None, database=None, derandomize=True, phases=phases)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("tests cannot be collected")
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # one for all children
        self._work(session.items)
        return True


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed. ``on_numbers``: numbers that were compared differ."""

    test: str
    on_numbers: bool
    message: str


def run_tests(
    items: Sequence[pytest.Item], enough: Callable[[Failure], bool], before: Callable[[str], None] | None = None
) -> list[Failure]:
    """Runs tests, the failures of which it returns, until one of them is ``enough``; ``before`` gets the name of each."""
    watcher = _Watcher()
    manager = items[0].config.pluginmanager if items else None
    if manager is not None:
        manager.register(watcher)
    for number, item in enumerate(items):
        if before is not None:
            before(item.nodeid)
        following = items[number + 1] if number + 1 < len(items) else None
        seen = len(watcher.failures)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if any(enough(f) for f in watcher.failures[seen:]):
            break
    return watcher.failures


_Report = Generator[None, pytest.TestReport, pytest.TestReport]


class _Watcher:
    def __init__(self) -> None:
        self.failures: list[Failure] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> _Report:
        report = yield
        if report.failed:
            excinfo = call.excinfo
            message = "" if excinfo is None else excinfo.exconly().partition("\n")[0]
            self.failures.append(Failure(item.nodeid, _on_numbers(excinfo), message[:300]))
        return report


def _on_numbers(excinfo: Any) -> bool:
    """True when a comparison of numpy.testing raised, or an error that such a one led to."""
    error = None if excinfo is None else excinfo.value
    while error is not None:
        frames = traceback.walk_tb(error.__traceback__)
        if isinstance(error, AssertionError) and any("numpy.testing" in f.f_globals.get("__name__", "") for f, _ in frames):
            return True
        error = error.__cause__ or error.__context__
    return False


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` in a child, for at most ``limit_s`` seconds."""

    name: str
    run: Callable[[], Answer]
    limit_s: float


def in_children(jobs: deque[Job], workers: int) -> Iterator[tuple[Job, Answer]]:
    """Every job and its answer, in the order in which they end. One that hangs or dies answers ``{"died": why}``.

    Jobs may be added meanwhile; the first in ``jobs`` is the next to begin.
    """
    begun = 0
    running: dict[int, tuple[Job, Path, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            while jobs or running:
                while jobs and len(running) < workers:
                    job, begun = jobs.popleft(), begun + 1
                    path = Path(folder) / f"{begun}.json"
                    running[_fork(job, path)] = (job, path, time.monotonic() + job.limit_s)
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid in running:
                    job, path, _ = running.pop(pid)
                    yield job, json.loads(path.read_text()) if path.exists() else {"died": f"status {status}"}
                    continue
                for late, (_, _, end) in running.items():
                    if time.monotonic() > end:
                        os.kill(late, signal.SIGKILL)
                time.sleep(0.05)
        finally:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _fork(job: Job, path: Path) -> int:
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: the process may have other threads
        pid = os.fork()
    if pid:
        return pid
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        answer = job.run()
    except BaseException:
        answer = {"died": traceback.format_exc()}
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(answer))
    unfinished.rename(path)
    os._exit(0)
