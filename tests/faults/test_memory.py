"""Too little memory, at 30 limits of the address space: exit code 6 or the right answer, never a bug or a signal."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from miniinfer_cli.backends.cpu import blas_memory
from miniinfer_cli.backends.cpu.blas import BlasThreads, Library
from miniinfer_cli.backends.cpu.blas_memory import ProductMemory
from miniinfer_cli.cli.main import main
from miniinfer_cli.errors import OutOfMemoryError
from miniinfer_cli.shortage import memory_ran_out
from tests.cli.conftest import mlp
from tests.forked import command_in_forked_child
from tests.fuzz.opening import SCALE

QUICK = ("--device", "cpu", "--duration", "0", "--warmup", "0", "--iterations", "1", "-q")
COMMANDS = (
    ("build", "m.onnx", "-q", "-o", "n.plan"),
    ("run", "m.plan", *QUICK, "--threads", "2", "--input", "x=x.npy", "--output", "y.npz"),
)
WRITTEN = ("n.plan", "y.npz")
STEPS = 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of 2 MiB, its plan, an input whose activations are 16 MiB, and what both commands write: the working directory.

    Both commands ran in this process, so that their libraries are loaded, but on a small model: what a process has freed it
    uses again without asking for more.
    """
    monkeypatch.chdir(tmp_path)
    for hidden, rows, within in ((8, 1, in_this_process), (1 << 16, 64, in_a_child)):
        onnx.save(mlp(hidden), "m.onnx")
        np.save("x.npy", np.ones((rows, 4), np.float32))
        for words in (("build", "m.onnx", "-q"), *COMMANDS):
            assert within(words) == 0
    return tmp_path


def in_this_process(words: tuple[str, ...]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code or 0


def in_a_child(words: tuple[str, ...]) -> object:
    return command_in_forked_child(words)[0]


def limited(limit: int, words: tuple[str, ...]) -> tuple[int, str]:
    """The exit code of a command in a forked child with so much more address space than it has, and what it said."""

    def lower() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + limit,) * 2)

    return command_in_forked_child(words, lower)


def contents(path: Path) -> object:
    if path.suffix == ".plan":
        return path.read_bytes()
    with np.load(path) as archive:
        return archive["y"].tolist()


def test_thirty_limits_around_a_build_and_a_run(folder: Path):
    right = {name: contents(folder / name) for name in WRITTEN}
    codes = set()
    for step in range(STEPS):
        limit = int((16 << 10) * 1.42**step)
        turns = (0, 1) if SCALE > 1 else (step % 2,)
        for words, name in ((COMMANDS[turn], WRITTEN[turn]) for turn in turns):
            (folder / name).unlink()
            code, said = limited(limit, words)
            codes.add((words[0], code))
            assert code in (0, 6), (limit, words, said)
            assert (code == 6) == said.startswith("miniinfer: error: "), said
            if code == 0:
                assert contents(folder / name) == right[name]
            else:
                assert not (folder / name).exists()
                (folder / name).touch()
    assert codes == {(words[0], code) for words in COMMANDS for code in (0, 6)}


COLD = """
import os, resource, sys
from miniinfer_cli.cli.main import main
steps, highest = map(int, sys.argv[1:3])
assert "numpy" not in sys.modules
pages = int(open("/proc/self/statm").read().split()[0])
for step in range(steps):
    limit = pages * resource.getpagesize() + (1 + highest * step // steps << 20)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        code = 99
        try:
            main(sys.argv[3:])
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_thirty_limits_around_a_process_that_has_yet_to_load_its_libraries(folder: Path, words: tuple[str, ...]):
    """At length up to what is enough; else as far as numpy and its matrix library would end the process."""
    steps, highest = (STEPS, 450) if SCALE > 1 else (8, 120)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", COLD, str(steps), str(highest), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    codes = [int(line) for line in done.stdout.split()]
    assert len(codes) == steps
    assert set(codes) == ({0, 6} if SCALE > 1 else {6}), done.stderr
    assert done.stderr.count("miniinfer: error: ") == codes.count(6)
    assert "MiB needed to start" in done.stderr


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOENT, "No such file"), False),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (ImportError("libx.so: cannot open shared object file: No such file or directory"), False),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("failed to map segment"), False),
        (ValueError("out of memory"), False),
    ],
    ids=repr,
)
def test_a_shortage_is_known_by_its_words_and_by_where_it_came_from(error: Exception, ran_out: bool):
    assert memory_ran_out(error) is ran_out
    for linked in (lambda e: e.__setattr__("__cause__", error), lambda e: e.__setattr__("__context__", error)):
        outer = KeyError("x")
        linked(outer)
        assert memory_ran_out(outer) is ran_out


def test_an_error_that_is_its_own_cause_has_an_end():
    error, other = ValueError("x"), ValueError("y")
    error.__cause__, other.__context__ = other, error
    assert not memory_ran_out(error)
    error.__cause__ = error
    assert not memory_ran_out(error)


class Buffers:
    """An OpenBLAS with room for so many buffers."""

    def __init__(self, room: int) -> None:
        self.room, self.taken, self.made = room, 0, 0

    def allocate(self, position: int) -> int | None:
        self.taken += 1
        self.made = max(self.made, self.taken)
        return self.taken if self.taken <= self.room else None

    def free(self, address: int) -> None:
        self.taken -= 1

    def library(self) -> Library:
        return Library(lambda: 1, lambda number: None, by_thread=False, memory=ProductMemory(self.allocate, self.free))


def test_every_run_and_worker_has_memory_for_a_product_before_it_begins():
    buffers = Buffers(3)
    blas = BlasThreads([buffers.library()])
    with blas:
        assert buffers.made == 1
        blas.add_worker()
        assert buffers.made == 2
        with blas:
            assert (buffers.made, buffers.taken) == (3, 0)
            with (
                pytest.raises(
                    OutOfMemoryError, match="memory for matrix products: 32 MiB needed for each of 4 at once"
                ) as raised,
                blas,
            ):
                pass
            assert "threads=" in raised.value.hint
            with pytest.raises(OutOfMemoryError):
                blas.add_worker()
    made = buffers.made
    with blas:
        assert buffers.made == made  # nothing more is asked for


def test_no_room_for_a_buffer_is_told_before_the_library_looks(monkeypatch: pytest.MonkeyPatch):
    def refuse(*words: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    buffers = Buffers(9)
    blas = BlasThreads([buffers.library()])
    monkeypatch.setattr(blas_memory.mmap, "mmap", refuse)
    with pytest.raises(OutOfMemoryError, match="32 MiB needed"), blas:
        pass
    assert buffers.made == 0
    monkeypatch.undo()
    with blas:
        assert buffers.made == 1


def test_numpys_own_library_gives_access_to_its_buffers():
    from miniinfer_cli.backends.cpu.blas import blas_threads

    assert blas_threads()._memories
