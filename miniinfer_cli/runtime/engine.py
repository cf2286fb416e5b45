"""Engine and Context: a plan opened on a device, and one caller's private state on it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine_format import Plan, PlanError, read_plan
from miniinfer_cli.backends.interface import LoadedModel, Program
from miniinfer_cli.errors import PlanFileError, UsageError
from miniinfer_cli.ir import Graph, TensorType, Type
from miniinfer_cli.planning.shape_values import shape_inputs
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.bindings import Binding, check_inputs
from miniinfer_cli.runtime.devices import load_model

_PROGRAMS = 32  # input shapes whose programs an engine keeps


class Engine:
    """A plan opened on one device; its weights are there once, for all contexts. Use as a context manager, or ``close()``.

    ``owns_plan``: closing the engine closes the plan's file too. A plan that the caller opened stays the caller's to close.
    Programs are made at the first run with a new set of input shapes and kept for the most recent sets.
    """

    def __init__(self, plan: Plan, device: str = "auto", *, owns_plan: bool = False) -> None:
        self.plan = plan
        self._owns_plan = owns_plan
        self._graph = thaw(plan)
        self.inputs = tuple(Binding(v.name, v.type) for v in self._graph.inputs)
        self.outputs = tuple(Binding(n, v.type) for n, v in zip(self._graph.output_names, self._graph.outputs, strict=True))
        self.ranges = {r.name: r for r in plan.ranges}
        self._shape_inputs = shape_inputs(self._graph)
        self._model: LoadedModel | None = load_model(self._graph, device)
        self.device = self._model.device
        self._programs: OrderedDict[Any, Program] = OrderedDict()
        self._lock = threading.Lock()
        self._run_lock = threading.Lock()
        self._context: Context | None = None

    @property
    def graph(self) -> Graph:
        """The plan's graph; read it, never edit it."""
        return self._graph

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name for these inputs by name, computed in the engine's own context.

        Calls from several threads take turns; for concurrency give each thread a ``create_context()``.
        Raises UsageError when an input does not fit its binding.
        """
        with self._run_lock:
            if self._context is None:
                self._context = self.create_context()
            return self._context.run(inputs)

    def create_context(self) -> "Context":
        """One more context: an arena of its own over the shared weights."""
        return Context(self)

    def program(self, arrays: list[Any]) -> Program:
        """The program for inputs like ``arrays`` (in binding order), made now if there is none yet."""
        key = tuple(self._key(i, a) for i, a in enumerate(arrays))
        with self._lock:
            model = self._loaded()
            program = self._programs.get(key)
            if program is not None:
                self._programs.move_to_end(key)
                return program
            program = model.make_program([self._type(i, a) for i, a in enumerate(arrays)])
            self._programs[key] = program
            if len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)
            return program

    def close(self) -> None:
        """Releases the weights and the engine's own context, after a ``run`` under way. May be called twice.

        Contexts made by the caller compute no more afterwards; they still want closing.
        """
        with self._run_lock, self._lock:
            if self._context is not None:
                self._context.close()
                self._context = None
            if self._model is not None:
                self._model.close()
                self._model = None
            self._programs.clear()
            if self._owns_plan:
                self.plan.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _loaded(self) -> LoadedModel:
        if self._model is None:
            raise UsageError("the engine is closed")
        return self._model

    def _key(self, number: int, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return type(value)
        return (value.shape, value.tobytes() if number in self._shape_inputs else None)

    def _type(self, number: int, value: Any) -> Type | None:
        declared = self.inputs[number].type
        if not isinstance(declared, TensorType) or not isinstance(value, np.ndarray):
            return declared
        return TensorType(declared.dtype, value.shape, value.copy() if number in self._shape_inputs else None)


class Context:
    """One caller's private state on an engine. One thread at a time may use it; a second one is refused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._device = engine._loaded().make_context()
        self._busy = threading.Lock()
        self._closed = False

    def run(self, inputs: Mapping[str, Any], times_ns: list[int] | None = None) -> dict[str, Any]:
        """The outputs by name; ``times_ns`` receives one duration in nanoseconds per step of the program."""
        arrays = check_inputs(self._engine.inputs, self._engine.ranges, inputs)
        return dict(zip((b.name for b in self._engine.outputs), self.run_arrays(arrays, times_ns), strict=True))

    def run_arrays(self, arrays: list[Any], times_ns: list[int] | None = None) -> tuple[Any, ...]:
        """Like ``run``, with checked inputs in binding order and outputs in order."""
        return self.run_timed(arrays, times_ns)[0]

    def run_timed(self, arrays: list[Any], times_ns: list[int] | None = None) -> tuple[tuple[Any, ...], int]:
        """Like ``run_arrays``, and the nanoseconds that the device took, without checks and look-ups."""
        if not self._busy.acquire(blocking=False):
            raise UsageError(
                "this context is in use by another thread", hint="give each thread a context: engine.create_context()"
            )
        try:
            if self._closed:
                raise UsageError("the context is closed")
            program = self._engine.program(arrays)
            started = time.perf_counter_ns()
            outputs = self._device.execute(program, arrays, times_ns)
            return outputs, time.perf_counter_ns() - started
        finally:
            self._busy.release()

    @property
    def arena_nbytes(self) -> int:
        """Bytes of activation memory held now."""
        return self._device.arena_nbytes

    def close(self) -> None:
        """Lets the arena go; may be called twice. Raises UsageError while another thread runs in it."""
        if not self._busy.acquire(blocking=False):
            raise UsageError("this context is in use by another thread", hint="close it when the run has ended")
        try:
            self._closed = True
            self._device.close()
        finally:
            self._busy.release()

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def load(source: "str | Path | Plan", device: str = "auto") -> Engine:
    """Opens a plan (a path, or a Plan in memory) on ``device``: ``auto``, ``cpu`` or ``cuda:N``.

    Raises PlanFileError when the file is not a sound plan, DeviceError when the device is not there.
    """
    if isinstance(source, Plan):
        return Engine(source, device)
    plan = open_plan(source)
    try:
        return Engine(plan, device, owns_plan=True)
    except BaseException:
        plan.close()
        raise


def open_plan(path: "str | Path") -> Plan:
    """Reads the plan at ``path``. Raises PlanFileError when there is none, or when it is not a sound plan."""
    try:
        return read_plan(path)
    except PlanError as error:
        raise PlanFileError(str(error), hint=error.hint).at(str(path)) from error
    except FileNotFoundError:
        hint = "build it first: miniinfer build model.onnx -o model.plan"
        raise PlanFileError("no such file", hint=hint).at(str(path)) from None
    except OSError as error:
        raise PlanFileError(f"cannot be read: {error.strerror}").at(str(path)) from None
