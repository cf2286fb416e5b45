"""What answers under load: every request once and rightly, in each scenario, by MLPerf's LoadGen and by our own generator."""

import platform
import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from miniinfer_cli.errors import DeviceError, UsageError
from miniinfer_cli.measuring import load_systems
from miniinfer_cli.measuring.benchmark import unwatched
from miniinfer_cli.measuring.load import Load, Scenario, run_load
from miniinfer_cli.measuring.load_summary import summarize_load
from miniinfer_cli.measuring.load_systems import Batched, Contexts, WallClock, frozen_collector
from miniinfer_cli.serving.batcher import Batcher
from tests.emulation.engine import open_emulated, plan_of
from tests.serving.staged import DOUBLE, Staged, open_cpu, row

SAMPLES = [row(number) for number in range(50)]
LOADS = {
    "single-stream": Load(Scenario.SINGLE_STREAM, 100, 0.0),
    "multi-stream": Load(Scenario.MULTI_STREAM, 662, 0.0, width=2),
    "server": Load(Scenario.SERVER, 470, 0.0, 2000.0),
    "offline": Load(Scenario.OFFLINE, 400, 0.0),
}
# mlcommons-loadgen has wheels for these, as the extra `dev` says.
HAS_LOADGEN = sys.version_info < (3, 14) and (sys.platform, platform.machine()) in (("linux", "x86_64"), ("darwin", "arm64"))


@pytest.fixture(params=["contexts", "batcher"])
def serve(request):
    """Gives a function that makes what answers of an engine, closed at the end."""
    with ExitStack() as stack:

        def made(engine, *, max_queue=1 << 20):
            if request.param == "contexts":
                return stack.enter_context(Contexts([engine], SAMPLES, streams=2, max_queue=max_queue))
            return Batched(stack.enter_context(Batcher(engine, 8, 1, max_queue, contexts=2)), SAMPLES)

        yield made


@pytest.fixture(params=["cpu", "gpu"])
def engine(request):
    with open_cpu() if request.param == "cpu" else open_emulated(plan_of(DOUBLE)) as opened:
        yield opened


@pytest.mark.skipif(not HAS_LOADGEN, reason="mlcommons-loadgen has no wheel for this platform")
@pytest.mark.parametrize("scenario", LOADS)
def test_loadgen_finds_every_answer_there_once(serve, scenario):
    from tests.loadgen import judge

    load = LOADS[scenario]
    with open_cpu() as engine:
        system = serve(engine)
        system.warm_up(0.0)
        verdict = judge(load, system, len(SAMPLES), budget_ms=5000.0, keep=True)
    assert verdict.result == "VALID", verdict.lines
    assert len(verdict.asked) >= load.queries * load.width
    assert verdict.answered == dict.fromkeys(verdict.asked, 1)
    for number, index in verdict.asked.items():
        np.testing.assert_array_equal(verdict.outputs[number]["y"], 2 * SAMPLES[index]["x"])


@pytest.mark.parametrize("scenario", LOADS)
def test_our_generator_has_every_answer_once(engine, serve, scenario):
    load = LOADS[scenario]
    load = Load(load.scenario, 25, 0.0, load.rate, load.width)
    answered = []
    system = serve(engine)
    original = system.submit

    def submit(number, answers):
        def end(numbered, begun, ended, outputs):
            answered.append((numbered, float(outputs["y"][0, 0])))
            answers.end(numbered, begun, ended, outputs)

        return original(number, mock.Mock(end=end, fail=answers.fail))

    system.submit = submit
    system.warm_up(0.0)
    with frozen_collector():
        log = run_load(load, system, WallClock(), unwatched)
    summary = summarize_load(load, log, 1)
    assert (summary.issued, summary.dropped, summary.unfinished) == (summary.completed, 0, 0)
    assert summary.issued == 25 * load.width if scenario != "offline" else summary.issued >= 25
    assert sorted(answered) == [(n, 2.0 * (n % len(SAMPLES))) for n in range(summary.issued)]
    assert (np.array(log.due) <= np.array(log.sent)).all() or scenario == "single-stream"
    assert (np.array(log.sent) <= np.array(log.begun)).all()
    assert (np.array(log.begun) <= np.array(log.ended)).all()


def test_what_finds_no_room_is_dropped(serve):
    with open_cpu() as engine:
        staged = Staged(engine)
        system = serve(staged, max_queue=3)
        staged.gate.clear()
        threading.Timer(0.3, staged.gate.set).start()
        load = Load(Scenario.SERVER, 100, 0.0, 1000.0)
        summary = summarize_load(load, run_load(load, system, WallClock(), unwatched), 1)
    assert summary.issued == 100 == summary.completed + summary.dropped
    assert 0 < summary.dropped < 100
    assert summary.latency is not None and summary.latency.maximum > 100


def test_an_error_of_a_request_is_raised(serve):
    with open_cpu() as engine:
        staged = Staged(engine, lambda numbers: DeviceError("gone") if 7 in numbers else None)
        for load in (LOADS["single-stream"], LOADS["server"]):
            with pytest.raises(DeviceError, match="gone"):
                run_load(load, serve(staged), WallClock(), unwatched)


def test_interrupted_it_computes_no_more(serve):
    with open_cpu() as engine:
        staged = Staged(engine)
        system = serve(staged)
        staged.gate.clear()

        def watch(stage, done):
            if done < 50:
                return
            threading.Timer(0.1, staged.gate.set).start()
            raise KeyboardInterrupt

        load = Load(Scenario.SERVER, 5000, 0.0, 500.0)
        log = run_load(load, system, WallClock(), watch)
    summary = summarize_load(load, log, 1)
    assert log.interrupted and summary.unfinished > 0
    assert summary.issued == summary.completed + summary.unfinished < 5000
    assert len(staged.batches) <= 4


def test_warming_up_comes_before_the_first_request():
    with open_cpu() as engine:
        staged = Staged(engine)
        with Batcher(staged, 4, 1, batch_sizes=[1, 2, 4], contexts=2) as batcher:
            batcher.warm_up(row(5))
            assert sorted(map(len, staged.batches)) == [1] * 8 + [2] * 8 + [4] * 8
            assert batcher.stats()["batches"] == 0
            assert batcher.submit(row(1)).result(20)["y"].tolist() == [[2, 2, 4]]
            with pytest.raises(UsageError, match="warm_up: requests have come already"):
                batcher.warm_up(row(5))
        with pytest.raises(UsageError, match="warm_up: the batcher is closed"):
            batcher.warm_up(row(5))


def test_the_collector_passes_over_what_is_there_and_goes_on_with_what_others_froze(monkeypatch):
    frozen = {"count": 0}
    done = []

    def freeze():
        done.append("freeze")
        frozen["count"] = 5

    collector = SimpleNamespace(
        collect=lambda: done.append("collect"),
        freeze=freeze,
        get_freeze_count=lambda: frozen["count"],
        unfreeze=lambda: done.append("unfreeze"),
    )
    monkeypatch.setattr(load_systems, "gc", collector)
    with frozen_collector():
        assert done == ["collect", "freeze"]
    assert done == ["collect", "freeze", "unfreeze"]
    with frozen_collector():
        pass
    assert done[3:] == ["collect", "freeze"]
