"""Asks the libraries of a GPU about every program of the golden record."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.golden import record
from tests.golden.libraries import Recorded, Recording

Opened = tuple[Any, Any]
"""A device, and its libraries."""


def record_answers(models: Sequence[tuple[str, str]], workers: int) -> Recorded:
    """The answers for models and element types, asked in so many processes.

    Raises DeviceError where there is no GPU, or one of the libraries is missing.
    """
    with spread(workers, len(models)) as each:
        return merged(list(each(partial(ask, open_gpu), *zip(*models, strict=True))))


@contextmanager
def spread(most: int, jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """What maps a function over so many jobs in at most so many processes. One that dies ends the work with an error."""
    if min(most, jobs) <= 1:
        yield map
        return
    with ProcessPoolExecutor(min(most, jobs), multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def ask(open_libraries: Callable[[], Opened], name: str, dtype: str) -> Recorded:
    """What the libraries say to the programs of one model."""
    device, libraries = open_libraries()
    try:
        asked = Recording(device, libraries)
        for _ in record.sections(name, (dtype,), [asked]):
            pass
        return asked.finished()
    finally:
        libraries.close()
        device.close()


def merged(parts: Sequence[Recorded]) -> Recorded:
    """Answers of one device that several processes asked."""
    first = parts[0]
    assert all((p.device, p.about) == (first.device, first.about) for p in parts), "the answers are of different devices"
    return Recorded(first.device, first.about, {k: v for p in parts for k, v in p.answers.items()})


def open_gpu() -> Opened:
    """``cuda:0`` and its libraries, with no cache: what they choose is chosen anew."""
    from miniinfer_cli.backends.cuda.driver.device import open_device
    from miniinfer_cli.backends.cuda.loading.libraries import Libraries

    device = open_device(0)
    return device, Libraries(device)
