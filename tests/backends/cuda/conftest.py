"""An emulated device under each schedule, which must be given back whole; kernels that count as those of huge tensors do."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from miniinfer_cli.backends.cuda.launching import grids
from tests.emulation.device import EmulatedDevice
from tests.emulation.stream import Schedule


@pytest.fixture(params=["at once", "late", "random"])
def emulated(request) -> Iterator[EmulatedDevice]:
    """Work is done at once, as late as can be, or in between: a wait that is missing shows in one of them."""
    device = EmulatedDevice(schedule=Schedule(request.param))
    yield device
    assert device.leftovers == {}


@pytest.fixture
def wide_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has kernels take offsets of 64 bits from so many elements on, in the place of the number from which an int overflows."""
    return partial(monkeypatch.setattr, grids, "_SMALL")


@pytest.fixture
def wide_indices(wide_from: Callable[[int], None]) -> None:
    """Kernels take offsets of 64 bits, as they do of huge tensors."""
    wide_from(0)
