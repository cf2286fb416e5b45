"""Opens bytes as a plan and holds the reader to its promise: sound or PlanError, at once, in little memory."""

import os
import resource
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_format import PlanError, read_plan
from miniinfer_cli.errors import PlanFileError
from miniinfer_cli.planning.thaw import thaw
from tests.engine_format.samples import file_bytes, rich_plan

SCALE = int(os.environ.get("MINIINFER_FUZZ_SCALE", "1"))
SECONDS = 1.0
# No opening may want more address space than this, whatever lengths a file claims.
ADDRESS_SPACE = 128 << 20
# Python's objects take more room than what they are read from: an integer of one byte 8 bytes in its list, an empty map
# 72, and a while both what was parsed and what was made of it are there.
ROOM, ROOM_PER_BYTE = 1 << 17, 160


class Opener:
    """``open(data)`` gives the refusal, or "" when ``data`` is a plan; fails the test when a promise is broken.

    The file is one in memory: a disk would take most of the time. Python's own memory is counted while ``counting``,
    which takes three times as long.
    """

    def __init__(self) -> None:
        self.counting = False
        self._fd = os.memfd_create("fuzzed.plan")
        self._path = f"/proc/self/fd/{self._fd}"

    def open(self, data: bytes) -> str:
        os.truncate(self._fd, len(data))
        os.pwrite(self._fd, data, 0)
        if self.counting:
            tracemalloc.start()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE, limits[1]))
        started = time.process_time()  # other processes may hold the processors
        try:
            refusal = self._open(len(data))
        finally:
            seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
            resource.setrlimit(resource.RLIMIT_AS, limits)
            tracemalloc.stop()
        assert seconds < SECONDS, (seconds, refusal)
        assert peak < ROOM + ROOM_PER_BYTE * len(data), (peak, refusal)
        return refusal

    def close(self) -> None:
        os.close(self._fd)

    def _open(self, length: int) -> str:
        try:
            plan = read_plan(self._path)
        except PlanError as error:
            assert error.offset is not None  # noqa: PT017  # what the error says is part of the promise
            assert 0 <= error.offset <= length  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return str(error)
        with plan:
            try:
                thaw(plan)
                plan.check()
            except (PlanError, PlanFileError) as error:
                return f"later: {error}"
        return ""


@pytest.fixture
def opener(sound: bytes) -> Iterator[Opener]:
    made = Opener()
    assert made.open(sound) == ""  # imports what there is to import
    yield made
    made.close()


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_bytes(rich_plan(), tmp_path_factory.mktemp("sound"))
