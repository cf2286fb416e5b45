"""What holds for every test: drawn examples have no time limit each, and one that fails says how to draw it again; no test
touches the user's own configuration; operations that a file defines go with it; what a test starts can be interrupted; the
garbage collector never looks through what earlier files of tests have left; files need not reach the disk; what is logged is
caught for a test that asks for it.
"""

import gc
import logging
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import settings

from miniinfer_cli.ops import registry
from tests.logs import Logged
from tests.worker_reports import tell_less

# `make ray-test` and `make servers-test` run these, in an environment that has what they need.
collect_ignore = [folder for folder, needed in (("ray_cluster", "ray"), ("other_servers", "litserve")) if not find_spec(needed)]

# The machine may be busy with other work.
settings.register_profile("without deadline", deadline=None, print_blob=True)
settings.load_profile("without deadline")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what runs in its background; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Workers tell of each test how it ended."""
    tell_less(session.config)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Tests, their modules and the cases of the ONNX suite are millions of objects, and stay to the end: a full collection among
    them takes 0.2 s, and each test of the emulated device asks for one.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def what_stays_is_not_collected() -> Iterator[None]:
    """What is kept for later tests (programs, kernels, models) is millions of objects, too, and tests of memory collect often."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def operations_go_with_their_file() -> Iterator[None]:
    """What a file of tests defines is not there for the next, which may ask what all operations are."""
    before = dict(registry._REGISTRY)
    yield
    for key in registry._REGISTRY.keys() - before.keys():
        del registry._REGISTRY[key]


@pytest.fixture(scope="session", autouse=True)
def own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for the key that signs kernels, for subprocesses too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def files_in_memory() -> Iterator[None]:
    """Plans that tests write are read back from the page cache: waiting for a busy disk took a third of the time of a first run.

    Tests of what happens when it fails put a function of their own in its place.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What is logged meanwhile, from warnings on: packages that other tests import (onnxruntime.quantization) raise the level."""
    handler, root = Logged(), logging.getLogger()
    root.addHandler(handler)
    with handler.at_level(logging.WARNING):
        yield handler
    root.removeHandler(handler)
