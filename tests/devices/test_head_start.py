"""Which devices are opened early, and that ``load`` begins with it."""

import subprocess
import sys

import pytest

from miniinfer_cli.backends.cuda.driver import head_start as driver_side
from miniinfer_cli.devices.head_start import head_start


@pytest.mark.parametrize(
    ("device", "scheduling", "ordinal"),
    [
        ("auto", "auto", 0),
        ("cuda", "auto", 0),
        ("cuda:3", "auto", 3),
        ("cuda:3", "spin", None),
        ("cpu", "auto", None),
        ("cuda:x", "auto", None),
        (" cuda:0", "auto", None),
        (3, "auto", None),
    ],
)
def test_which_gpu_is_begun(monkeypatch: pytest.MonkeyPatch, device: object, scheduling: str, ordinal: int | None) -> None:
    begun: list[int] = []

    class Begun:
        def __init__(self, number: int) -> None:
            begun.append(number)

        def __enter__(self) -> None: ...

        def __exit__(self, *exception: object) -> None: ...

    monkeypatch.setattr(driver_side, "HeadStart", Begun)
    with head_start(device, scheduling):
        assert begun == ([] if ordinal is None else [ordinal])


def test_load_begins_with_it_and_ends_it() -> None:
    code = """
import sys
import miniinfer_cli
from miniinfer_cli.backends.cuda.driver import head_start

class Begun:
    def __init__(self, number):
        print("begun", number, "numpy" in sys.modules)
    def __enter__(self): ...
    def __exit__(self, kind, *more):
        print("ended", kind.__name__, "numpy" in sys.modules)

head_start.HeadStart = Begun
try:
    miniinfer_cli.load("no such.plan", device="cuda:2")
except Exception:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["begun 2 False", "ended PlanFileError True"]
