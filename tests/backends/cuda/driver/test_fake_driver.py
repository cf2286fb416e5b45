"""The stand-in takes as many arguments as the bindings do, so that what passes here is a sound call there."""

import inspect

import pytest
from cuda.bindings import driver

from tests.backends.cuda.driver.fake_driver import FakeDriver

NAMES = sorted(name for name in vars(FakeDriver) if name.startswith("cu"))


@pytest.mark.parametrize("name", NAMES)
def test_arguments(name: str):
    signature = getattr(driver, name).__doc__.partition("\n")[0]
    arguments = signature.partition("(")[2].rstrip(")")
    expected = len(arguments.split(",")) if arguments else 0
    assert len(inspect.signature(vars(FakeDriver)[name]).parameters) - 1 == expected
