"""Runs many cases in forked children, each bounded in time and memory; a child that ends is one case's outcome, too."""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.semantic import seeds
from tests.fuzz.semantic.cases import Outcome, emptied, run_case, signature_of
from tests.fuzz.semantic.runtime_server import RuntimeServer, die_with_parent

BATCH = 200
"""Cases of one child: few enough that what caches hold does not count, and that all children end at nearly the same time."""
WALL_S = 90.0
"""A case that takes longer is killed, and its stack told: three times what is allowed, for a busy machine."""
_ROOM = 6 << 30
_LATE = (
    "miniinfer_cli.backends.cuda.choice.coverage",
    "miniinfer_cli.cli.build", "miniinfer_cli.cli.inspect", "miniinfer_cli.cli.profile",
    "miniinfer_cli.cli.run", "miniinfer_cli.cli.invocation", "miniinfer_cli.onnx_import.data_files", "numpy.ma",
)  # fmt: skip
_LIMIT = 6


@dataclass
class _Child:
    kind: str
    pid: int
    pipe: int
    todo: list[int]
    folder: Path
    text: bytes = b""
    since: float = field(default_factory=time.monotonic)


def outcomes(
    kinds: Sequence[str], first: int, count: int, *, workers: int, ends: float = float("inf"), keep: Path | None = None
) -> Iterator[Outcome]:
    """The outcomes of the cases ``first`` to ``first + count`` of each kind, as they come, until the monotonic clock is ``ends``.

    The kinds take turns. ``keep`` gets the files of the broken ones and of those that differ.
    """
    _prepare()
    batch = max(1, min(BATCH, -(-count // workers)))
    starts = range(first, first + count, batch)
    batches = [(kind, range(n, min(n + batch, first + count))) for n in starts for kind in kinds][::-1]
    gc.freeze()  # no collection in a child touches, and so copies, what it inherits
    with tempfile.TemporaryDirectory(prefix="miniinfer-fuzz-", dir=_in_memory()) as made:
        base = Path(made)
        (base / "plans").mkdir()
        children: list[_Child] = []
        try:
            while children or batches:
                late = time.monotonic() > ends
                if late:
                    batches.clear()
                while batches and len(children) < workers:
                    children.append(_start(*batches.pop(), base, keep))
                ready = select.select([c.pipe for c in children], [], [], 1.0)[0]
                for child in list(children):
                    if child.pipe in ready:
                        yield from _read(child)
                    over = time.monotonic() - child.since > WALL_S + 5
                    if over or late:
                        os.kill(child.pid, signal.SIGKILL)
                    if over or late or (child.pipe in ready and child.text is _ENDED):
                        children.remove(child)
                        fault = _reap(child)
                        if fault is not None and not late:
                            _keep(fault, child.folder, keep)
                            yield fault
                        if child.todo and not late:
                            batches.append((child.kind, child.todo))
        finally:
            for child in children:
                os.kill(child.pid, signal.SIGKILL)
                _reap(child)
            gc.unfreeze()


def _prepare() -> None:
    """Loads what children inherit: the seeds, and the modules that commands import late."""
    seeds.suite_models(), seeds.exported_models()
    for module in _LATE:
        importlib.import_module(module)


def _in_memory() -> str | None:
    """A folder in memory where there is one: on a disk the syncs of many builds at a time wait for each other."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


_ENDED = b"\0ended"


def _read(child: _Child) -> Iterator[Outcome]:
    """What the child has told since."""
    data = os.read(child.pipe, 1 << 16)
    if not data:
        child.text = _ENDED
        return
    *lines, child.text = (child.text + data).split(b"\n")
    for line in lines:
        child.since = time.monotonic()
        outcome = Outcome(**json.loads(line))
        child.todo.remove(outcome.seed)
        yield outcome


def _reap(child: _Child) -> Outcome | None:
    """Ends the child; the outcome of the case that it died in, None when it was through."""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if not child.todo:
        return None
    kind, seed = child.kind, child.todo.pop(0)
    with contextlib.suppress(OSError):
        text = (child.folder / "fault").read_text(errors="replace")
        code = os.waitstatus_to_exitcode(status)
        if code == _LIMIT:  # a run within one call of a library, at its time limit
            return Outcome(kind, seed, ["run"], [code])
        took = WALL_S if "Timeout" in text else 0.0
        ordered = _innermost_last(text) if "most recent call first" in text else text
        return Outcome(kind, seed, ["?"], [code], took, signature=f"ended by {code}: {signature_of(ordered)}")
    return Outcome(kind, seed, ["?"], [os.waitstatus_to_exitcode(status)], signature="ended before it began")


def _innermost_last(text: str) -> str:
    """faulthandler tells the innermost call first, tracebacks last."""
    current = text[text.rfind("(most recent call first)") :]
    return "\n".join(reversed(current.splitlines()))


def _start(kind: str, todo: Sequence[int], base: Path, keep: Path | None) -> _Child:
    read, write = os.pipe()
    folder = Path(tempfile.mkdtemp(dir=base))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: a test runner has other threads
        pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 1
        try:
            _work(kind, todo, folder, base / "plans", write, keep)
            code = 0
        except BaseException:  # of ours here, or what a command let through: told like any other
            (folder / "fault").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    os.close(write)
    return _Child(kind, pid, read, list(todo), folder)


def _work(kind: str, todo: Sequence[int], folder: Path, plans: Path, pipe: int, keep: Path | None) -> None:
    die_with_parent()
    with contextlib.suppress(OSError):
        os.setsid()
    os.environ |= {"MINIINFER_CACHE": "", "MINIINFER_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(folder / "case" / "config")}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM,) * 2)
    fault = (folder / "fault").open("w")
    faulthandler.enable(fault)
    # A test runner may have put its own in their places. Line by line, as Python's own standard error.
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False, errors="backslashreplace") for n in (1, 2))  # noqa: SIM115
    with RuntimeServer() as server:
        for seed in todo:
            os.truncate(fault.fileno(), 0)
            faulthandler.dump_traceback_later(WALL_S, exit=True, file=fault)
            outcome = run_case(kind, seed, emptied(folder / "case"), plans, server)
            faulthandler.cancel_dump_traceback_later()
            _keep(outcome, folder, keep)
            os.write(pipe, json.dumps(outcome.to_json()).encode() + b"\n")


def _keep(outcome: Outcome, folder: Path, keep: Path | None) -> None:
    if keep is not None and (outcome.broken or outcome.difference) and (folder / "case").exists():
        shutil.copytree(folder / "case", keep / f"{outcome.kind}-{outcome.seed}", dirs_exist_ok=True)
