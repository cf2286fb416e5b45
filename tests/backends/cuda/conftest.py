"""An emulated device under each schedule, which must be given back whole."""

from collections.abc import Iterator

import pytest

from tests.emulation.device import EmulatedDevice
from tests.emulation.stream import Schedule


@pytest.fixture(params=["at once", "late", "random"])
def emulated(request) -> Iterator[EmulatedDevice]:
    """Work is done at once, as late as can be, or in between: a wait that is missing shows in one of them."""
    device = EmulatedDevice(schedule=Schedule(request.param))
    yield device
    assert device.leftovers == {}
