"""Every call of a small build, of a run and of an emulated device fails once: the right error, nothing torn, nothing leaked."""

import contextlib
import gc
import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engine_format import TargetSection, read_plan, write_plan
from miniinfer_cli.cli.main import main
from miniinfer_cli.errors import DeviceError, OutOfMemoryError
from tests.cli.conftest import mlp
from tests.emulation.device import EmulatedDevice
from tests.emulation.engine import open_emulated, plan_of
from tests.faults.injection import Injector
from tests.fuzz.opening import SCALE

RUNS_OUT = {"write", "truncate", "fsync", "replace", "copy_file_range", "mmap", "read", "fromfile", "stat", "fstat", "fchmod"}
# What a command can do without: files that tell of the machine, locks, owners, and a look at what may be there.
DISPENSABLE = {"open", "stat", "fstat", "lstat", "scandir", "flock", "fchown", "fchmod"}
QUICK = ("--device", "cpu", "--duration", "0", "--warmup", "0", "--iterations", "1", "-q")
X = np.ones((2, 4), np.float32)


@pytest.fixture(autouse=True)
def quick_collections() -> None:
    """What is there already is not searched for garbage after every fault."""
    gc.collect()
    gc.freeze()


@dataclass
class Job:
    """What is done again and again, and the files that it writes, with what makes two versions of one equal."""

    words: tuple[str, ...]
    written: dict[str, Callable[[Path], Any]]


def arrays_in(path: Path) -> dict[str, bytes]:
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive.files}


def without_placement(path: Path) -> dict[str, Any]:
    """The report says where the nodes would run, and does without that for want of memory."""
    report = json.loads(path.read_text())
    del report["gpu"]
    return report


JOBS = {
    "build": Job(("build", "m.onnx", "-o", "new.plan"), {"new.plan": Path.read_bytes}),
    "run": Job(
        ("run", "m.plan", *QUICK, "--input", "x=x.npy", "--output", "y.npz", "--json", "j"),
        {"y.npz": arrays_in, "j": lambda path: path.read_text().startswith("{")},
    ),
    "inspect": Job(("inspect", "m.plan", "--check", "--json", "j"), {"j": without_placement}),
}


def command(*words: str) -> tuple[int, str]:
    """The exit code, and what was printed to standard error."""
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0), err.getvalue()


def open_files() -> list[str]:
    """The paths of files that are open. Sockets and pipes are of whatever else runs in this process."""
    gc.collect()
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names are what is wanted
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115 - a name is no path where it is a pipe's
    return sorted(path for path in found if path.startswith("/"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with its data beside it, its plan, an input; the working directory."""
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    np.save("x.npy", X)
    assert command("build", "m.onnx", "-q") == (0, "")
    return tmp_path


def expected_codes(failed: str, exhausted: bool) -> set[int]:
    if failed in ("empty", "thread"):
        return {0, 6}  # a report can do without where the nodes would run
    codes = {6} if exhausted and failed in RUNS_OUT else {2, 3, 4}  # 3 for the data of a model
    return {0, *codes} if failed in DISPENSABLE else codes


@pytest.mark.parametrize("name", JOBS)
def test_every_call_on_files_and_memory_fails_once(name: str, folder: Path):
    job = JOBS[name]
    assert command(*job.words)[0] == 0
    new = {file: key(folder / file) for file, key in job.written.items()}
    old = {file: f"old {file}".encode() for file in job.written}
    there = sorted(os.listdir())  # noqa: PTH208
    open_before = open_files()
    # Both ways of failing in turn; at length every call fails in both.
    for kinds in ((0, 1), (1, 0))[:SCALE]:
        number, failed = 0, "anything"
        while failed:
            for file, contents in old.items():
                (folder / file).write_bytes(contents)
            injector = Injector(number + 1, kind := kinds[number % 2])
            with injector.files():
                code, err = command(*job.words)
            number, failed = number + 1, injector.failed
            told = f"call {number}, {failed}: exit code {code}, {err}"
            assert code in (expected_codes(failed, not kind) if failed else {0}), told
            assert code == 0 or err.startswith("miniinfer: error: "), told
            for file, key in job.written.items():
                torn = (folder / file).read_bytes() != old[file] and key(folder / file) != new[file]
                assert not torn and (code or key(folder / file) == new[file]), told
            assert sorted(os.listdir()) == there, told  # noqa: PTH208
            assert open_files() == open_before, told
        assert number > 20, "the calls were not counted"


def test_a_plan_with_a_new_section_is_whole_or_as_it_was(folder: Path):
    path = folder / "m.plan"
    before = path.read_bytes()
    number, failed = 0, "anything"
    while failed:
        number += 1
        injector = Injector(number, number % 2)
        try:
            with read_plan(path) as plan, injector.files():
                write_plan(plan.with_target(TargetSection("sm_90")), path)
        except (OSError, MemoryError):
            assert injector.failed not in ("", "flock", "fchown", "scandir")
            assert path.read_bytes() == before or injector.failed == "fsync"
        failed = injector.failed
        with read_plan(path) as plan:
            plan.check()
            assert failed or [t.arch for t in plan.targets] == ["sm_90"]
        path.write_bytes(before)
    assert number > 10
    assert not list(folder.glob(".*"))


MODEL = """
graph main(x: f32[n,3]) {
  w: f32[3] = const [1.0, 2.0, 3.0]
  axis: i64[] = const 0
  y = Mul(x, w)
  z = CumSum(y, axis)
  return z
}
"""


def test_every_call_of_the_device_fails_once(tmp_path: Path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    right = np.cumsum(x * [1, 2, 3], 0).tolist()
    step = 1 if SCALE > 1 else 2  # every second call where there is little time
    number, failed = 1 - step, "anything"
    with plan_of(MODEL, written_to=tmp_path / "m.plan") as plan:
        while failed:
            number += step
            device, injector = EmulatedDevice(), Injector(number)
            with injector.driver(currents=SCALE > 1):
                try:
                    with open_emulated(plan, device) as engine:
                        try:
                            with engine.create_context() as context:
                                for _ in range(2):  # both slots: directly, captured, replayed
                                    futures = [context.enqueue({"x": x}) for _ in range(3)]
                                    assert [f.result()["z"].tolist() for f in futures] == [right] * 3
                                for _ in range(3):
                                    context.start([x], timed=True).result()
                        except (DeviceError, OutOfMemoryError):
                            assert injector.failed
                            assert engine.run({"x": x})["z"].tolist() == right
                except (DeviceError, OutOfMemoryError):
                    assert injector.failed
            failed = injector.failed
            assert not device.leftovers, (number, failed)
    assert number > 60, "the calls were not counted"
