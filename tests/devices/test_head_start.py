"""Which devices are opened early, and that ``load`` begins with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine_format.layout import MAGIC
from miniinfer_cli.backends.cuda.driver import head_start as driver_side
from miniinfer_cli.devices.head_start import head_start
from tests.emulation.engine import plan_of


def note(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The GPUs that are begun, by number."""
    begun: list[int] = []

    class Begun:
        def __init__(self, number: int) -> None:
            begun.append(number)

        def __enter__(self) -> None: ...

        def __exit__(self, *exception: object) -> None: ...

    monkeypatch.setattr(driver_side, "HeadStart", Begun)
    return begun


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
    begun = note(monkeypatch)
    with head_start(plan_of("graph main(x: f32[2]) { y = Relu(x)\n return y }"), device, scheduling):
        assert begun == ([] if ordinal is None else [ordinal])


@pytest.mark.parametrize("what", ["no file", "a folder", "text", "nothing", "bytes"])
def test_nothing_is_begun_for_what_is_no_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str) -> None:
    begun, path = note(monkeypatch), tmp_path / "m.plan"
    if what in ("text", "nothing"):
        path.write_text("" if what == "nothing" else "model: 1")
    source = {"bytes": MAGIC, "a folder": tmp_path}.get(what, path)
    with head_start(source, "auto"):
        assert begun == []
    path.write_bytes(MAGIC)
    for name in (path, str(path)):
        with head_start(name, "auto"):
            pass
    assert begun == [0, 0]


def test_load_begins_with_it_and_ends_it(tmp_path: Path) -> None:
    (tmp_path / "m.plan").write_bytes(MAGIC)
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
    miniinfer_cli.load(sys.argv[1], device="cuda:2")
except Exception:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m.plan"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["begun 2 False", "ended PlanFileError True"]
