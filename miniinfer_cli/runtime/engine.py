"""Engine: a plan opened on a device."""

import contextlib
import errno
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from engine_format import Plan, PlanError, read_plan
from engine_format.forking import ForkSafeLock
from miniinfer_cli.backends.interface import (
    DEFAULT_OPTIONS,
    MOST_THREADS,
    DeviceOptions,
    LoadedModel,
    Program,
    Scheduling,
    TrustTargets,
)
from miniinfer_cli.backends.kept_programs import KeptPrograms
from miniinfer_cli.errors import PlanFileError, UsageError, unknown_option, unmappable
from miniinfer_cli.ir import Graph, TensorType, Type
from miniinfer_cli.limits import chosen_limits
from miniinfer_cli.ops.budget import UNBOUNDED, Allowance, Budget, current
from miniinfer_cli.planning.branches import Variants
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.bindings import Binding, check_inputs, complete_shapes, constant_inputs
from miniinfer_cli.runtime.cache_folder import default_cache
from miniinfer_cli.runtime.calls import OneOfAKind, takes_inputs
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.devices import LoadModel, load_model
from miniinfer_cli.runtime.stats import Stats
from miniinfer_cli.runtime.trust import key_in_environment, vet_for
from miniinfer_cli.wording import Wording

_PROGRAMS = 32  # input shapes whose programs an engine keeps
_SHOWN = 4  # inputs, and outputs, in an engine's repr


class Engine(OneOfAKind):
    """A plan opened on one device; its weights are there once, for all contexts. Use as a context manager, or ``close()``.

    ``owns_plan``: closing the engine closes the plan's file too. A plan that the caller opened stays the caller's to close.
    ``load``: what loads the graph on the device in the place of ``devices.load_model``.
    Programs are made at the first run with a new set of input shapes and kept for the most recent sets.
    """

    _instead = "load the plan once more, by its path in another process; for more threads take engine.create_context()"

    def __init__(
        self,
        plan: Plan,
        device: str = "auto",
        *,
        owns_plan: bool = False,
        options: DeviceOptions = DEFAULT_OPTIONS,
        load: LoadModel | None = None,
    ) -> None:
        self.plan = plan
        self._owns_plan = owns_plan
        self._graph = thaw(plan, chosen_limits(options.limits))
        self.inputs = tuple(Binding(v.name, v.type, self._graph.defaults.get(v.name)) for v in self._graph.inputs)
        self.constant_inputs = constant_inputs(plan)
        """Inputs of the model that are constants of the plan, since they have an initializer."""
        self.outputs = tuple(Binding(n, v.type) for n, v in zip(self._graph.output_names, self._graph.outputs, strict=True))
        self.ranges = {r.name: r for r in plan.ranges}
        self._variants = Variants(self._graph)
        vet = vet_for(options)
        self._model: LoadedModel | None = (load or load_model)(self._graph, device, options, plan.report.options)
        self.device = self._model.device
        if not options.ignore_targets and options.trust_targets != "never":
            self._model.use_targets(plan.targets, vet)
        self.allowance = Allowance(options.time_limit, options.memory_limit)
        self._budgets: weakref.WeakSet[Budget] = weakref.WeakSet()
        self._budgets_lock = ForkSafeLock()
        self.counters = Stats()
        self._programs: KeptPrograms[Program] = KeptPrograms(_PROGRAMS)
        self._lock = ForkSafeLock()
        self._run_lock = ForkSafeLock(threading.RLock)  # an input's __array__ may run the engine
        self._context: Context | None = None
        self._contexts: weakref.WeakSet[Context] = weakref.WeakSet()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the plan was opened, and of what of it was not taken."""
        return () if self._model is None else self._model.notes

    @property
    def graph(self) -> Graph:
        """The plan's graph; read it, never edit it."""
        return self._graph

    @property
    def model(self) -> LoadedModel:
        """The model on its device. Raises UsageError when the engine is closed."""
        if self._model is None:
            raise UsageError("the engine is closed", hint="load the plan again: miniinfer_cli.load(plan)")
        return self._model

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The inputs."""
        return self.inputs

    @takes_inputs
    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name for these inputs by name, computed in the engine's own context.

        Inputs are numpy arrays, arrays of other libraries (anything with ``__array__`` or DLPack, on the host or on the engine's
        GPU), or lists of numbers, which take the input's element type where that loses nothing but decimals. Calls from several
        threads take turns; for concurrency give each thread a ``create_context()``. Raises UsageError when an input does not
        fit its binding.
        """
        with self._run_lock:
            if self._context is None:
                self._context = self.create_context()
            return self._context.run(inputs)

    def create_context(self) -> Context:
        """One more context: an arena of its own over the shared weights."""
        with self._lock:
            context = Context(self)
            self._contexts.add(context)
            return context

    def make_budget(self) -> Budget:
        """What the inferences of one context may spend."""
        budget = Budget(self.allowance)
        with self._budgets_lock:
            self._budgets.add(budget)
        return budget

    def overdue_s(self) -> float:
        """Seconds by which the inference under way that is the latest has passed its time limit; negative where none has."""
        with self._budgets_lock:
            deadlines = [b.deadline for b in self._budgets]
        return time.monotonic() - min(deadlines, default=math.inf)

    def check(self, inputs: Mapping[str, Any]) -> list[Any]:
        """The arrays of ``inputs`` in binding order, as contexts take them. Raises UsageError for what does not fit."""
        model = self.model
        if not isinstance(inputs, Mapping):
            name = self.inputs[0].name if self.inputs else "x"
            raise UsageError(
                f"inputs: expected a dict of names and arrays, got {type(inputs).__name__}",
                hint=f"give it by name, {{{name!r}: array}}; the plan's inputs are {', '.join(map(str, self.inputs))}",
            )
        adopted = {name: value if (found := model.adopt(name, value)) is None else found for name, value in inputs.items()}
        arrays = check_inputs(self.inputs, self.ranges, adopted, self.constant_inputs)
        return [
            model.fetch(a) if i in self._variants.host_inputs and a is not None and not isinstance(a, (np.ndarray, list)) else a
            for i, a in enumerate(arrays)
        ]

    def program(self, arrays: list[Any]) -> Program:
        """The program for inputs like ``arrays`` (in binding order), made now if there is none yet.

        Raises UsageError when the engine is closed.
        """
        if self.allowance != UNBOUNDED and current() is None:  # for somebody who only looks at it
            with self.make_budget().inference(arrays):
                return self.program(arrays)
        _ = self.model
        variant = self._variants.choose(arrays, lambda: [self._type(i, a) for i, a in enumerate(arrays)])

        def make() -> Program:
            types = [self._type(i, a, contents=i in variant.shape_inputs) for i, a in enumerate(arrays)]
            return self.model.make_program(types, variant.graph)

        return self._programs.get((variant.path, *(_key(a, i in variant.shape_inputs) for i, a in enumerate(arrays))), make)

    def program_for_shapes(self, shapes: Mapping[str, Sequence[int]]) -> Program:
        """The program for inputs of these shapes by name; what they leave open is at the plan's optimum. Raises UsageError."""
        zeros: dict[str, Any] = {}
        for binding, shape in zip(self.inputs, complete_shapes(self.inputs, self.ranges, shapes), strict=True):
            dtype = binding.dtype
            zeros[binding.name] = np.broadcast_to(np.full((), "" if dtype is not None and dtype.hasobject else 0, dtype), shape)
        return self.program(check_inputs(self.inputs, self.ranges, zeros))

    def stats(self) -> dict[str, Any]:
        """Counters for monitoring: inferences, a histogram of latencies, programs, and what the device's side counts."""
        programs = self._programs
        counts = {"programs": len(programs), "programs_made": programs.made, "programs_evicted": programs.evicted}
        return {"device": self.device, **counts, **self.counters.snapshot(), **self.model.stats()}

    def close(self) -> None:
        """Releases all contexts, each after the run under way in it, and the weights. May be called twice.

        What was enqueued is computed, and its futures give it afterwards; arrays on the device are gone. Raises UsageError from
        within a run of its own.
        """
        with self._run_lock:
            for context in list(self._contexts):
                context.expect_no_run_around()
            with self._programs.making, self._lock:
                model, self._model = self._model, None
                contexts = list(self._contexts)
            with contextlib.ExitStack() as stack:  # which goes on when one of them fails
                if self._owns_plan:
                    stack.callback(self.plan.close)
                if model is not None:
                    stack.callback(model.close)
                stack.callback(self._programs.close)
                # Not under the lock: what runs in a context may want it first.
                for context in contexts:
                    stack.callback(context.close, wait=True)
            self._context = None

    def __repr__(self) -> str:
        state = ", closed" if self._model is None else ""
        return f"<Engine on {self.device}: {_few(self.inputs)} -> {_few(self.outputs)}{state}>"

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _type(self, number: int, value: Any, *, contents: bool = False) -> Type | None:
        declared = self.inputs[number].type
        if not isinstance(declared, TensorType) or not hasattr(value, "shape"):
            return declared
        return TensorType(declared.dtype, value.shape, value.copy() if contents else None)


def _key(value: Any, contents: bool) -> Any:
    if value is None or isinstance(value, list) or not hasattr(value, "shape"):
        return type(value)
    return (value.shape, value.tobytes() if contents else None)


def _few(bindings: Sequence[Binding]) -> str:
    more = [f"{len(bindings) - _SHOWN} more"] if len(bindings) > _SHOWN else []
    return ", ".join([*map(str, bindings[:_SHOWN]), *more])


def load(source: "str | Path | Plan", device: str = "auto", options: DeviceOptions = DEFAULT_OPTIONS) -> Engine:
    """Opens a plan (a path, or a Plan in memory) on ``device``: ``auto``, ``cpu`` or ``cuda:N``.

    Raises PlanFileError when the file is not a sound plan, DeviceError when the device is not there, UsageError for arguments
    of another kind.
    """
    if not isinstance(device, str):
        raise UsageError(f"device: expected auto, cpu or cuda:N, got {device!r}")
    if isinstance(source, Plan):
        return Engine(source, device, options=options)
    if not isinstance(source, (str, os.PathLike)):
        hint = "give the path of a plan, or what build() returned"
        if isinstance(source, (bytes, bytearray, memoryview)):
            hint = "write the bytes to a file, and give its path: a plan is mapped, not read"
        raise UsageError(f"load: expected a path or a Plan, got {type(source).__name__}", hint=hint)
    plan = open_plan(source)
    try:
        return Engine(plan, device, owns_plan=True, options=options)
    except BaseException:
        plan.close()
        raise


def load_with(source: "str | Path | Plan", device: str, options: Mapping[str, Any]) -> Engine:
    """Like ``load``, with the fields of DeviceOptions by name; kernels are kept in the user's cache folder by default."""
    known = [f.name for f in fields(DeviceOptions)]
    for name in options:
        if name not in known:
            raise unknown_option("load", name, known)
    chosen = DeviceOptions(**{"cache": default_cache(), "trust_key": key_in_environment(), **options})
    expect_options(chosen)
    cache, trust_key = (None if path is None else Path(path) for path in (chosen.cache, chosen.trust_key))
    return load(source, device, replace(chosen, cache=cache, trust_key=trust_key))


def expect_options(chosen: DeviceOptions) -> None:
    """Raises UsageError for an option of another kind, and for two that contradict each other."""
    for name in ("cuda_graph", "overlap", "ignore_targets", "nvtx"):
        if not isinstance(getattr(chosen, name), bool):
            raise UsageError(f"{name}: expected True or False, got {getattr(chosen, name)!r}")
    for name, words in (("scheduling", get_args(Scheduling)), ("trust_targets", get_args(TrustTargets))):
        if getattr(chosen, name) not in words:
            raise UsageError(f"{name}: expected one of {', '.join(words)}, got {getattr(chosen, name)!r}")
    if chosen.ignore_targets and chosen.trust_targets == "always":
        raise UsageError("ignore_targets=True and trust_targets='always' exclude each other")
    if chosen.threads is not None and (type(chosen.threads) is not int or not 1 <= chosen.threads <= MOST_THREADS):
        raise UsageError(f"threads: expected a whole number from 1 to {MOST_THREADS}, got {chosen.threads!r}")
    seconds, nbytes = chosen.time_limit, chosen.memory_limit
    if seconds is not None and (type(seconds) not in (int, float) or not 0 < seconds < math.inf):
        raise UsageError(f"time_limit: expected seconds above 0, or None, got {seconds!r}")
    if nbytes is not None and (type(nbytes) is not int or nbytes < 1):
        raise UsageError(f"memory_limit: expected a whole number of bytes above 0, or None, got {nbytes!r}")
    for name, kind in (("cache", "folder"), ("trust_key", "file")):
        path = getattr(chosen, name)
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise UsageError(f"{name}: expected a {kind} or None, got {path!r}")


def open_plan(path: "str | Path") -> Plan:
    """Reads the plan at ``path``. Raises PlanFileError when there is none, or when it is not a sound plan.

    Raises OutOfMemoryError when it cannot be mapped for want of memory.
    """
    try:
        return read_plan(path)
    except PlanError as error:
        raise PlanFileError(str(error), hint=error.hint).at(str(path)) from error
    except FileNotFoundError:
        hint = Wording(
            "build it first: miniinfer_cli.build(model, plan)", flags="build it first: miniinfer build model.onnx -o model.plan"
        )
        raise PlanFileError("no such file", hint=hint).at(str(path)) from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise unmappable(path) from None
        raise PlanFileError(f"cannot be read: {error.strerror}").at(str(path)) from None
