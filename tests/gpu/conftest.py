"""Tests that need a GPU: without one they are skipped before anything is run, with one a skip is a failure."""

import fcntl
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver.device import Device, driver_fault, open_device
from miniinfer_cli.backends.cuda.driver.stream import Stream

FAULT = driver_fault()
"""Why there is no GPU to test on; None when there is one."""


# What is about torch needs it; nothing else here does, and a skip would be a failure.
collect_ignore = [] if importlib.util.find_spec("torch") else ["test_torch_compile.py"]


class ModuleWithoutGpu(pytest.Module):
    """A file of tests that is not even imported."""

    def collect(self) -> Any:
        pytest.skip(f"no GPU: {FAULT}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Any, parent: Any) -> pytest.Module | None:
    return None if FAULT is None else ModuleWithoutGpu.from_parent(parent, path=module_path)


def forbid_skip(report: Any) -> None:
    """Makes a failure of a skip; an expected failure, which pytest reports in the same way, stays one."""
    if FAULT is None and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped on a machine with a GPU: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: Any) -> Iterator[None]:
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: Any) -> Iterator[Any]:
    """Tests marked ``alone``, which look at the free memory or the time of the whole GPU, run while no other worker's test does.

    Nor any fixture's setup: a worker's first test makes a CUDA context.
    """
    if FAULT is not None:
        return (yield)
    with (Path(tempfile.gettempdir()) / f"miniinfer-gpu-tests-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        return (yield)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    """The first GPU; whatever a file's tests leave open on it is closed at the end of the file."""
    with open_device(0) as device:
        device.make_current()
        yield device


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    """A stream of the test's own; the device is current."""
    device.make_current()
    with device.create_stream() as made:
        yield made
