"""Workers in processes: a plan opened and measured, faults as they would be raised here, ends that nobody asked for."""

import io
import os
import signal

import numpy as np
import pytest

from engine_format import write_plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.comparison import workers
from miniinfer_cli.comparison.messages import Job, described, raised, read_job, write_job
from miniinfer_cli.comparison.workers import WorkerProcess
from miniinfer_cli.errors import DeviceError, InputDataError, LimitExceeded, OutOfMemoryError, PlanFileError, UsageError
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.planning.freeze import freeze
from tests.forked import ForkedModule


def job(plan, **changes):
    feeds = [{"x": np.ones((rows, 4), np.float32)} for rows in (2, 5)]
    fields = {
        "options": DeviceOptions(),
        "plugins": (),
        "feeds": feeds,
        "streams": 2,
        "transfers": True,
        "warmup_s": 0.0,
        **changes,
    }
    return Job(str(plan), "cpu", **fields)


@pytest.fixture
def plan(tmp_path):
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (symbol("batch"), 4)))
    graph.set_outputs([graph.add("Relu", x, type=x.type)], ["y"])
    write_plan(freeze(graph), tmp_path / "a.plan")
    return tmp_path / "a.plan"


def test_a_worker_from_beginning_to_end(plan, tmp_path, monkeypatch):
    (tmp_path / "talkative_plugin.py").write_text("print('what a plugin says is no answer')")
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerProcess("A", job(plan, plugins=("talkative_plugin",))) as worker:
        times = worker.ready()
        assert len(times) == 2 and all(t > 0 for t in times)
        before = worker.cpu_s
        reading = worker.segment(1, 0.05)
        assert reading.time_ms > 0
        assert 2 <= len(reading.latencies_ms) <= 512
        assert list(reading.latencies_ms) == sorted(reading.latencies_ms)
        assert worker.state() == {}
        assert worker.cpu_s > before > 0
        os.kill(worker.pid, signal.SIGINT)  # Ctrl-C in the terminal goes to all
        assert worker.segment(0, 0.0).time_ms > 0
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(
            OutOfMemoryError, match=r"a process that measures A ended by signal SIGKILL: has the memory run out\?"
        ):
            worker.segment(0, 0.0)
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_faults_are_those_that_there_would_be_here(tmp_path, plan, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", ForkedModule)
    with WorkerProcess("B", job(tmp_path / "none.plan")) as worker, pytest.raises(PlanFileError, match="no such file") as caught:
        worker.ready()
    assert caught.value.where == (str(tmp_path / "none.plan"),)
    assert "build it first" in caught.value.hint


def test_a_bug_in_a_worker_is_told_with_its_last_line(plan, monkeypatch):
    monkeypatch.setattr(workers, "_MODULE", "miniinfer_cli.comparison.intervals")  # a module that answers nothing
    with (
        WorkerProcess("A", job(plan)) as worker,
        pytest.raises(DeviceError, match="a process that measures A ended with exit code 0"),
    ):
        worker.ready()


@pytest.mark.parametrize(
    "error",
    [UsageError("a", hint="b").at("c"), InputDataError("a"), LimitExceeded("a"), PlanFileError("a", details=("d", "e"))],
)
def test_faults_there_and_back(error):
    with pytest.raises(type(error)) as caught:
        raised(described(error))
    assert (type(caught.value), str(caught.value)) == (type(error), str(error))


def test_memory_and_bugs():
    with pytest.raises(OutOfMemoryError, match="this machine's memory ran out"):
        raised(described(MemoryError()))
    with pytest.raises(KeyError):
        described(KeyError("a bug"))
    raised({"time_ms": 1.0})  # no fault


def test_jobs_there_and_back(plan):
    stream = io.BytesIO()
    write_job(stream, job(plan, options=DeviceOptions(threads=3)))
    contents = stream.getvalue()
    found = read_job(io.BytesIO(contents))
    assert (found.plan, found.options.threads, found.feeds[1]["x"].shape) == (str(plan), 3, (5, 4))
    for cut in (0, 4, len(contents) - 1):
        with pytest.raises(EOFError):
            read_job(io.BytesIO(contents[:cut]))
