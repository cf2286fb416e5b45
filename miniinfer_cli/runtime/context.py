"""Context: one caller's private state on an engine; and the future of an inference that it enqueued."""

import contextlib
import operator
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from engine_format.forking import ForkSafeLock
from miniinfer_cli.backends.interface import Clock, LoadedModel, Pending, Program, StepRound
from miniinfer_cli.errors import MiniinferError, ModelError, UsageError
from miniinfer_cli.ops.budget import Budget
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.calls import OneOfAKind, takes_inputs
from miniinfer_cli.runtime.context_states import ContextStates
from miniinfer_cli.runtime.html import Outputs
from miniinfer_cli.runtime.state_layout import StateLayout
from miniinfer_cli.runtime.stats import Stats
from miniinfer_cli.runtime.watching import Watchers
from miniinfer_cli.wording import Wording

if TYPE_CHECKING:
    from concurrent import futures

_OTHER_INPUTS = Wording(
    "give other inputs, or inputs of other sizes; where it fails with all, build the plan again from a mended model",
    flags="give other inputs (--input) or sizes (--shapes); where it fails with all, build the plan again from a mended model",
)

Shapes = Sequence[int] | Mapping[str, Sequence[int]] | None
"""The shape of one input, or shapes by the name of the input."""


class Opened(Protocol):
    """The engine, as its contexts see it; see ``engine.Engine``."""

    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    counters: Stats

    @property
    def model(self) -> LoadedModel:
        """See Engine."""

    @property
    def states(self) -> StateLayout | None:
        """See Engine."""

    def create_context(self) -> "Context":
        """See Engine."""

    def make_budget(self) -> Budget:
        """See Engine."""

    def check(self, inputs: Mapping[str, Any]) -> list[Any]:
        """See Engine."""

    def whole_program(self, arrays: list[Any]) -> Program:
        """See Engine."""

    def program_for_shapes(self, shapes: Mapping[str, Sequence[int]]) -> Program:
        """See Engine."""


class Context(OneOfAKind):
    """One caller's private state on an engine. One thread at a time may use it; a second one is refused."""

    _instead = "make another: engine.create_context()"

    def __init__(self, engine: Opened) -> None:
        self._engine = engine
        self._device = engine.model.make_context()
        self._budget = engine.make_budget()
        self._busy = ForkSafeLock()
        self._user = 0
        """The thread whose run is under way; 0 between two."""
        self._closed = False
        self.watchers = Watchers(self._device.depth)
        """Who waits for futures in the place of an event loop."""
        self._states = None if engine.states is None else ContextStates(engine.states, self._device, engine.whole_program)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The inputs of the plan."""
        return self._engine.inputs

    @takes_inputs
    def run(
        self, inputs: Mapping[str, Any], times_ns: list[int] | None = None, *, counts: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """The outputs by name for these ``inputs`` by name.

        ``times_ns`` receives one duration in nanoseconds per step of the program. ``counts``: for a plan with caches, how many of
        the tokens of each slot of the batch are new; all where it is left out. What is beyond a slot's count is computed for
        nothing.
        """
        return self._named(self.run_arrays(self._engine.check(inputs), times_ns, counts=counts))

    def run_arrays(
        self, arrays: list[Any], times_ns: list[int] | None = None, *, counts: Sequence[int] | None = None, commit: bool = True
    ) -> tuple[Any, ...]:
        """Like ``run``, with checked inputs as ``arrays`` in binding order, and outputs in order.

        ``times_ns`` and ``counts`` as there. Without ``commit`` the states of the context are afterwards what they were.
        """
        with self._counted(time.perf_counter()), self._used(), self._budget.inference(arrays):
            if self._states is None:
                return self._device.execute(self._engine.whole_program(arrays), arrays, times_ns)
            return self._states.run(arrays, times_ns, counts, commit=commit)

    def time_steps(self, arrays: list[Any]) -> StepRound:
        """One inference of checked ``arrays`` in binding order, timed step by step, for measuring: states stay what they are."""
        with self._used(), self._budget.inference(arrays):
            arrays = self._for_measuring(arrays)
            return self._device.time_steps(self._engine.whole_program(arrays), arrays)

    @takes_inputs
    def enqueue(self, inputs: Mapping[str, Any], *, on_device: bool = False, counts: Sequence[int] | None = None) -> "Future":
        """Starts an inference of these ``inputs`` by name and returns at once; its outputs by name are the future's ``result()``.

        Two inferences are under way at a time on a GPU, so that copies hide behind computation; a third call waits for the
        first, whose results are kept for its future. ``on_device``: outputs stay on the GPU, as arrays that are valid until
        the second call from here. ``counts``: see ``run``; the states count as changed from here on. A CPU computes in the call.
        """
        arrays = self._engine.check(inputs)
        with self._used():
            return self._enqueue(arrays, on_device, counts)

    def enqueue_arrays(self, arrays: list[Any]) -> "Future":
        """Like ``enqueue``, with checked inputs as ``arrays`` in binding order."""
        with self._used():
            return self._enqueue(arrays, False)

    @takes_inputs
    def try_enqueue(self, inputs: Mapping[str, Any], *, on_device: bool = False) -> "Future | None":
        """Like ``enqueue`` of ``inputs`` and ``on_device``, or None where that would wait for the device."""
        arrays = self._engine.check(inputs)
        with self._used():
            return None if self._device.is_busy() else self._enqueue(arrays, on_device)

    def start(self, arrays: list[Any], *, timed: bool = False, transfers: bool = True) -> Pending:
        """Like ``enqueue``, with checked ``arrays`` in binding order, for measuring: what these hold is copied once.

        From then on inputs come from pinned memory, where the outputs are left, as a server has it that fills and reads it.
        ``timed``: the device takes the time of its part. Without ``transfers`` nothing is copied at all: the device computes on
        what earlier calls left there. States stay what they are.
        """
        with self._used(), self._budget.inference(arrays):
            arrays = self._for_measuring(arrays)
            return self._device.replay(self._engine.whole_program(arrays), arrays, timed=timed, transfers=transfers)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows that the caches of the context hold for each slot of the batch; nothing before the first inference.

        Raises UsageError for a plan without caches, as do ``length`` and ``truncate``.
        """
        return self._caches().lengths

    @property
    def length(self) -> int:
        """Rows that the caches hold, of the slot that has most."""
        return max(self.lengths, default=0)

    def reset(self, slot: int | None = None) -> None:
        """Empties the states of one slot of the batch, or of all, whose number may be another one afterwards.

        Raises UsageError for a plan without states, and for a slot that there is not.
        """
        with self._used():
            self._stateful().reset(slot)

    def truncate(self, length: int, slot: int | None = None) -> None:
        """Forgets all rows of the caches but the first ``length``, of one slot of the batch or of each.

        Raises UsageError where fewer are held, and for a plan with a state that has no rows.
        """
        with self._used():
            self._caches().truncate(length, slot)

    def fork(self) -> "Context":
        """One more context of the engine, whose states are copies of those here. What is under way counts."""
        with self._used():
            states = self._stateful()
            other = self._engine.create_context()
            try:
                assert other._states is not None
                other._states.copy_of(states)
            except BaseException:
                other.close()
                raise
            return other

    def set_clock(self) -> Clock:
        """Waits for what is under way, and sets the point from which ``Pending.intervals_ms`` of what ``start`` times count."""
        with self._used():
            return self._device.set_clock()

    def input_buffer(self, name: str, shapes: Shapes = None) -> Any:
        """The memory on the device that the next inference reads ``name`` from; fill it, and give it as the input.

        ``shapes``: the shape of this input, or shapes of several by name. Named dimensions are alike in all inputs; those that
        no shape tells are at the plan's optimum. Raises UsageError for what does not fit, and for a size that stays open.
        """
        return self._buffers(name, shapes, self._device.input_buffers)

    def pinned_buffer(self, name: str, shapes: Shapes = None) -> Any:
        """Like ``input_buffer`` for ``name`` and ``shapes``: a numpy array of pinned memory, copied from with no detour."""
        return self._buffers(name, shapes, self._device.host_buffers)

    def staging_buffers(self, shapes: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
        """The ``pinned_buffer`` of every input in binding order, for the shapes of all of them by name.

        None for an input that is no tensor of numbers.
        """
        with self._used(), self._budget.inference(()):
            return self._given(self._device.host_buffers(self._engine.program_for_shapes(shapes)))

    @property
    def depth(self) -> int:
        """Inferences that can be under way at once."""
        return self._device.depth

    @property
    def arena_nbytes(self) -> int:
        """Bytes of activation memory held now."""
        return self._device.arena_nbytes

    def close(self, *, wait: bool = False) -> None:
        """Lets the arena go; may be called twice. What was enqueued is computed before, and its futures give it afterwards.

        Raises UsageError while another thread runs in it, unless told to ``wait`` for that, and from within a run of its own.
        """
        self.expect_no_run_around()
        if not self._busy.acquire(blocking=wait):
            raise UsageError("this context is in use by another thread", hint="close it when the run has ended")
        try:
            self._closed = True
            self._device.close()
            self.watchers.close()
        finally:
            self._busy.release()

    def expect_no_run_around(self) -> None:
        """Raises UsageError where this thread is within a run in this context, which would wait for itself."""
        if self._user == threading.get_ident():
            hint = "come back when the run has ended, or take another context"
            raise UsageError("this context is in use by a run around this call", hint=hint)

    def __repr__(self) -> str:
        return f"<Context of {self._engine!r}{', closed' if self._closed else ''}>"

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def finish(self, pending: Pending, started: float) -> dict[str, Any]:
        """The outputs by name of a ``pending`` inference, which was ``started`` then (time.perf_counter); waits for it."""
        with self._counted(started):
            return self._named(pending.result())

    def hand_over(self, pending: Pending, stream: int) -> dict[str, Any]:
        """The outputs by name of a ``pending`` inference, for what is enqueued in ``stream`` from here on. Counted, not timed."""
        with self._counted_failures():
            outputs = pending.on_stream(stream)
        self._engine.counters.count("inferences")
        return self._named(outputs)

    def _enqueue(self, arrays: list[Any], on_device: bool, counts: Sequence[int] | None = None) -> "Future":
        started = time.perf_counter()
        with self._counted_failures(), self._budget.inference(arrays):
            if self._states is None:
                program = self._engine.whole_program(arrays)
                return Future(self, self._device.enqueue(program, arrays, on_device=on_device), started)
            return Future(self, self._states.enqueue(arrays, counts, on_device=on_device), started)

    def _for_measuring(self, arrays: list[Any]) -> list[Any]:
        """All inputs of the program that ``arrays`` want, of the first where they want several."""
        return arrays if self._states is None else self._states.begin(arrays, None)[0].inputs

    def _given(self, buffers: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of buffers for all inputs of the graph those that are the caller's to fill."""
        layout = self._engine.states
        return buffers if layout is None else tuple(buffers[i] for i in layout.given)

    def _stateful(self) -> ContextStates:
        if self._states is None:
            hint = Wording(
                "build it with states: state=['past:present'] or kv_cache=ROWS",
                flags="build it with states: --state PAST:PRESENT or --kv-cache ROWS",
            )
            raise UsageError("the plan has no states", hint=hint)
        return self._states

    def _caches(self) -> ContextStates:
        states = self._stateful()
        if not states.layout.has_caches:
            raise UsageError("the plan has no caches, whose rows could be counted", hint="reset() and fork() work for all states")
        return states

    def _named(self, outputs: tuple[Any, ...]) -> dict[str, Any]:
        return Outputs(zip((b.name for b in self._engine.outputs), outputs, strict=True))

    def _buffers(self, name: str, shapes: Shapes, get: Any) -> Any:
        bindings = self._engine.inputs
        number = next((i for i, b in enumerate(bindings) if b.name == name), None)
        if number is None:
            raise UsageError(f"there is no input {name!r}", hint=f"the inputs are {', '.join(map(str, bindings))}")
        if shapes is None:
            shapes = {}
        given = shapes if isinstance(shapes, Mapping) else {name: shapes}
        checked = {n: _sizes(n, s) for n, s in given.items()}
        with self._used(), self._budget.inference(()):
            buffer = self._given(get(self._engine.program_for_shapes(checked)))[number]
        if buffer is None:
            raise UsageError(f"input {name!r} is no tensor of numbers: it has no buffer on the device")
        return buffer

    @contextmanager
    def _used(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            self.expect_no_run_around()
            raise UsageError(
                "this context is in use by another thread", hint="give each thread a context: engine.create_context()"
            )
        try:
            if self._closed:
                raise UsageError("the context is closed", hint="make another: engine.create_context()")
            self._user = threading.get_ident()
            yield
        except ModelError as error:
            error.suggest(_OTHER_INPUTS)
            raise
        finally:
            self._user = 0
            self._busy.release()

    @contextmanager
    def _counted(self, started: float) -> Iterator[None]:
        try:
            yield
        except MiniinferError as error:
            self._count_failure(error)
            raise
        self._engine.counters.add_latency((time.perf_counter() - started) * 1e3)

    @contextmanager
    def _counted_failures(self) -> Iterator[None]:
        try:
            yield
        except MiniinferError as error:
            self._count_failure(error)
            raise

    def _count_failure(self, error: MiniinferError) -> None:
        self._engine.counters.count("failures")
        if isinstance(error, ModelError):
            error.suggest(_OTHER_INPUTS)


def _sizes(name: str, shape: Any) -> tuple[int, ...]:
    """The sizes of a shape that a caller gave. Raises UsageError for what is none."""
    try:
        sizes = tuple(operator.index(d) for d in shape)
    except TypeError:
        sizes = (-1,)
    if any(d < 0 for d in sizes):
        hint = f'give a tuple of sizes, (1, 3, 224, 224), or shapes by name, {{"{name}": (1, 3, 224, 224)}}'
        raise UsageError(f"input {name!r}: {shape!r} is not a shape", hint=hint)
    return sizes


class Future(OneOfAKind):
    """An inference that was enqueued. Any thread may wait for it, and ``await`` gives its result to asyncio."""

    _instead = "hand on what result() gives"

    def __init__(self, context: Context, pending: Pending, started: float) -> None:
        self._context = context
        self._pending = pending
        self._started = started
        self._outputs: dict[str, Any] | None = None
        self._handed: dict[str, Any] | None = None
        self._fault: MiniinferError | None = None
        self._lock = ForkSafeLock()

    def done(self) -> bool:
        """True when ``result`` would not wait for the device."""
        return self._outputs is not None or self._pending.done()

    def result(self) -> dict[str, Any]:
        """The outputs by name; waits until they are there. May be called again, and fails again when it failed."""
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if self._outputs is None and self._handed is not None:
                self._pending.wait()
                self._outputs = self._handed
            if self._outputs is None:
                try:
                    self._outputs = self._context.finish(self._pending, self._started)
                except MiniinferError as error:
                    self._fault = error
                    raise
            return self._outputs

    def on_stream(self, stream: int) -> dict[str, Any]:
        """The outputs by name at once, for an ``enqueue`` with ``on_device``: ``stream`` waits for them, and the host does not.

        ``stream``: the handle of a CUDA stream of another library on the same GPU (``torch.cuda.current_stream().cuda_stream``);
        what is enqueued there from here on may read them, until the second call of the context from here. What the device
        fails in is told by whoever waits for that stream. On a CPU, and where the host has a part in the outputs, this is
        ``result``.
        """
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if self._outputs is None and self._handed is None:
                try:
                    self._handed = self._context.hand_over(self._pending, stream)
                except MiniinferError as error:
                    self._fault = error
                    raise
            outputs = self._outputs if self._outputs is not None else self._handed
            assert outputs is not None
            return outputs

    def as_concurrent(self) -> "futures.Future[dict[str, Any]]":
        """A ``concurrent.futures.Future`` of the same result, for ``asyncio.wrap_future``, ``wait`` and ``as_completed``.

        From here on a thread of the context waits for the device; where the inference has ended, none has to. Cancelling what
        this gives ends the watching, not the inference.
        """
        return self._context.watchers.watch(self)

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        """The outputs by name, when they are there; meanwhile the event loop goes on. See ``as_concurrent``."""
        import asyncio  # late: only those who await have it loaded already

        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        watched = self.as_concurrent()

        def wake() -> None:
            if not ended.done():  # whoever awaits may have been cancelled
                ended.set_result(None)

        def told(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(wake)

        watched.add_done_callback(told)
        try:
            yield from ended
        finally:
            watched.cancel()
        return self.result()
