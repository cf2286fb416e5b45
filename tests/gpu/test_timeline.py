"""The timeline of inferences on the GPU: its tracks lie beside the host's as far as the clocks can tell."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.measuring.benchmark import Schedule
from miniinfer_cli.measuring.timeline import INFERENCES, Track, record_timeline
from miniinfer_cli.measuring.trace_events import trace_events
from tests.gpu.plans import small
from tests.measuring.trace_rules import check_trace

OPTIONS = [DeviceOptions(), DeviceOptions(overlap=False), DeviceOptions(cuda_graph=False)]


@pytest.mark.parametrize("options", OPTIONS, ids=["graph", "no overlap", "no graph"])
@pytest.mark.parametrize("streams", [1, 2])
def test_copies_and_computing_lie_between_the_calls_of_their_inference(options: DeviceOptions, streams: int) -> None:
    with miniinfer_cli.load(small("resnet50"), "cuda:0", cuda_graph=options.cuda_graph, overlap=options.overlap) as engine:
        feeds = {b.name: np.zeros([8 if isinstance(n, str) else n for n in b.shape or ()], np.float32) for b in engine.inputs}
        timeline = record_timeline(engine, engine.check(feeds), Schedule(), streams=streams)
    error = timeline.clock_error_us
    assert error < 100
    check_trace(trace_events(timeline, "cuda:0", {}), one_clock=False)
    for stream in range(streams):
        for inference in range(INFERENCES):
            found = {(s.track, s.name): s for s in timeline.spans if (s.stream, s.inference) == (stream, inference)}
            assert len(found) == 5
            host = [found[Track.HOST, name] for name in ("enqueue", "wait")]
            device = {track: span for (track, _), span in found.items() if track is not Track.HOST}
            copied_in, computed, copied_out = (device[t] for t in (Track.COPY_IN, Track.COMPUTE, Track.COPY_OUT))
            assert host[0].begin_us - error <= copied_in.begin_us
            assert copied_in.begin_us + copied_in.length_us <= computed.begin_us + 1
            assert computed.begin_us + computed.length_us <= copied_out.begin_us + 1
            assert copied_out.begin_us + copied_out.length_us <= host[1].begin_us + host[1].length_us + error
            assert computed.length_us > 0
    print(f"streams {streams}, {options.cuda_graph=}, {options.overlap=}: the clocks are {error:.1f} us apart at most")
