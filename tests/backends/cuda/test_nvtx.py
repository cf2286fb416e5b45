"""Steps are named to profilers where that was asked for."""

import sys

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contexts.context import ContextOptions
from miniinfer_cli.backends.cuda.driver.nvtx import Ranges, open_ranges
from miniinfer_cli.errors import DeviceError
from tests.emulation.engine import open_emulated, plan_of


class Recorder:
    def __init__(self) -> None:
        self.events: list[str] = []

    def push_range(self, text: str, domain: str) -> None:
        self.events.append(f"{domain}: {text}")

    def pop_range(self, domain: str) -> None:
        self.events.append("end")


def test_every_step_is_a_range_as_it_is_enqueued() -> None:
    recorder = Recorder()
    plan = plan_of("graph main(x: f32[4]) {\n  y = Softmax(x)\n  z = Exp(y)\n  return z\n}")
    with open_emulated(plan) as engine:
        engine.model.options = ContextOptions(cuda_graph=False, ranges=Ranges(recorder))
        with engine.create_context() as context:
            for _ in range(3):
                context.run({"x": np.arange(4, dtype=np.float32)})
    assert recorder.events == ["miniinfer: Softmax y", "end", "miniinfer: Exp z", "end"] * 3


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with pytest.raises(DeviceError, match=r"NVTX ranges were asked for, and .*\n  hint: pip install nvtx"):
        open_ranges()
