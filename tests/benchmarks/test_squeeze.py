"""The benchmark of squeeze-and-excitation on the emulated device: every cut is checked against f64, and a wrong one is told."""

import argparse
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.tuning.rig import Rig
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.ops.registry import lookup
from miniinfer_cli.planning.thaw import thaw
from tests.benchmarks import convolutions, squeeze
from tests.emulation.device import EmulatedFunctions
from tests.emulation.engine import load_emulated

_OPTIONS = argparse.Namespace(dtype="f16", rounds=1)


def test_cuts_are_checked_and_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(plan: Any, device: str, options: DeviceOptions) -> Any:
        return nullcontext(SimpleNamespace(model=load_emulated(functions=EmulatedFunctions())(thaw(plan), device, options, {})))

    monkeypatch.setattr(convolutions, "load", load)
    monkeypatch.setattr(Rig, "copies_for", lambda self, once_us: 1)
    assert not squeeze.measure(2, 5, 32, 4, _OPTIONS)
    told = capsys.readouterr().out
    assert told.count("cluster of ") == 5 and "WRONG" not in told and "takes cluster of 8x1" in told
    right = lookup("miniinfer", "SqueezeExcitation").evaluate
    wrong = SimpleNamespace(evaluate=lambda *given, **options: [np.asarray(y) + 0.1 for y in right(*given, **options)])
    monkeypatch.setattr(squeeze, "lookup", lambda *names: wrong)
    assert squeeze.measure(2, 5, 32, 4, _OPTIONS) and "WRONG" in capsys.readouterr().out
