"""A device over the stand-in for the driver."""

from collections.abc import Iterator

import pytest

from miniinfer_cli.backends.cuda.driver.device import Device
from tests.backends.cuda.driver.fake_driver import OK, FakeDriver


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    # The statuses are the real ones, and the library that explains them may not be here.
    monkeypatch.setattr("cuda.bindings.driver.cuGetErrorString", lambda status: (OK, b"as the driver says"))
    return FakeDriver()


@pytest.fixture
def device(fake: FakeDriver) -> Iterator[Device]:
    with Device(0, fake) as device:
        yield device
    assert +fake.alive == {}
