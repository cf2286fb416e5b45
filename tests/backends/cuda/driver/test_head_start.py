"""A GPU opened early: what is begun, and that it is given back."""

# The names are the driver's.
# ruff: noqa: N802

import ctypes
import threading
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver.head_start import HeadStart

_BEGUN = ["cuInit", "cuDeviceGet 1", "cuDevicePrimaryCtxRetain 1"]


class Driver:
    """libcuda.so.1 as ctypes shows it; ``fails``: the call that does."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def _called(self, name: str, *arguments: Any) -> int:
        self.calls.append(" ".join([name, *map(str, arguments)]))
        self.threads.add(threading.get_ident())
        return int(name == self.fails)

    def cuInit(self, flags: int) -> int:
        return self._called("cuInit")

    def cuDeviceGet(self, target: Any, ordinal: int) -> int:
        target._obj.value = ordinal
        return self._called("cuDeviceGet", ordinal)

    def cuDevicePrimaryCtxRetain(self, target: Any, device: Any) -> int:
        return self._called("cuDevicePrimaryCtxRetain", device.value)

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        return self._called("cuDevicePrimaryCtxRelease_v2", device.value)


def give(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> list[str]:
    asked: list[str] = []

    def load(name: str) -> Driver:
        asked.append(name)
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    return asked


def test_the_context_is_made_on_another_thread_and_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    assert give(monkeypatch, driver) == []
    with HeadStart(1) as start:
        start.close()
        assert driver.calls == [*_BEGUN, "cuDevicePrimaryCtxRelease_v2 1"]
    assert driver.calls == [*_BEGUN, "cuDevicePrimaryCtxRelease_v2 1"]
    assert len(driver.threads) == 2
    assert not [t for t in threading.enumerate() if t.name == "miniinfer-head-start"]


@pytest.mark.parametrize("number", range(3))
def test_what_fails_ends_it_and_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    driver = Driver(_BEGUN[number].partition(" ")[0])
    give(monkeypatch, driver)
    HeadStart(1).close()
    assert driver.calls == _BEGUN[: number + 1]


def test_no_driver_and_no_memory_for_a_thread_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert give(monkeypatch, None) == []
    HeadStart(0).close()

    def start(thread: threading.Thread) -> None:
        raise MemoryError

    driver = Driver()
    give(monkeypatch, driver)
    monkeypatch.setattr("miniinfer_cli.backends.cuda.driver.head_start.start_thread", start)
    HeadStart(0).close()
    assert driver.calls == []
