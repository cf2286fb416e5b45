"""Segments: contexts that stay, at least one inference, several streams, errors."""

import threading

import numpy as np
import pytest

from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.measuring.segments import Rig
from miniinfer_cli.planning.freeze import freeze


@pytest.fixture(params=["cpu", "cuda:0"])
def engine(request, monkeypatch):
    if request.param != "cpu":
        from miniinfer_cli.devices import opening
        from tests.emulation.engine import load_emulated

        monkeypatch.setattr(opening, "load_model", load_emulated())
    graph = Graph()
    x = graph.add_input("x", TensorType(DType.F32, (symbol("batch"), 4)))
    graph.set_outputs([graph.add("Relu", x, type=x.type)], ["y"])
    with load(freeze(graph), request.param) as opened:
        yield opened


@pytest.mark.parametrize("streams", [1, 3])
def test_segments(engine, streams):
    arrays = engine.check({"x": np.ones((2, 4), np.float32)})
    with Rig(engine, arrays, streams=streams) as rig:
        rig.warm_up(0.0)
        shortest = rig.segment(0.0)
        assert len(shortest.latencies_ms) == streams
        longer = rig.segment(0.05)
        assert len(longer.latencies_ms) > streams
        assert 0 < longer.time_ms < 50
        assert threading.active_count() < 20
    rig.close()


def test_what_fails_in_a_stream_is_raised(engine):
    arrays = engine.check({"x": np.ones((2, 4), np.float32)})
    for streams in (1, 2):
        with Rig(engine, arrays, streams=streams) as rig:
            rig.warm_up(0.0)
        with pytest.raises(UsageError, match="closed"):
            rig.segment(0.0)
