"""Engine: a plan opened on a device."""

import contextlib
import math
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from engine_format import DimensionRange, Plan
from engine_format.forking import ForkSafeLock
from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, DeviceOptions, LoadedModel, LoadModel, Program
from miniinfer_cli.backends.kept_programs import KeptPrograms
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, TensorType, Type
from miniinfer_cli.limits import chosen_limits
from miniinfer_cli.ops.budget import UNBOUNDED, Allowance, Budget, current
from miniinfer_cli.planning.branches import BranchedGraph, BranchedGraphs
from miniinfer_cli.planning.thaw import thaw
from miniinfer_cli.runtime.bindings import Binding, check_inputs, complete_shapes, constant_inputs
from miniinfer_cli.runtime.calls import OneOfAKind, takes_inputs
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.html import engine_html
from miniinfer_cli.runtime.plan_files import open_plan
from miniinfer_cli.runtime.state_layout import StateLayout
from miniinfer_cli.runtime.stats import Stats
from miniinfer_cli.runtime.trust import vet_for

_PROGRAMS = 32  # input shapes whose programs an engine keeps
_TAKEN = 256  # sets of types and shapes of inputs that need no second look
_SHOWN = 4  # inputs, and outputs, in an engine's repr


class Engine(OneOfAKind):
    """A plan opened on one device; its weights are there once, for all contexts. Use as a context manager, or ``close()``.

    ``owns_plan``: closing the engine closes the plan's file too. A plan that the caller opened stays the caller's to close.
    ``load`` loads the graph on the device: ``devices.models.load_model``, for whom ``devices.opening.load`` calls this.
    ``beside``: an engine of the same plan on another device, whose weights are copied rather than read once more.
    Pickled, an engine of a plan file is its path, digest, device and options: it is opened anew where it is unpickled.
    Programs are made at the first run with a new set of input shapes and kept for the most recent sets.
    """

    _instead = "load the plan once more; for more threads take engine.create_context()"

    def __init__(
        self,
        plan: Plan,
        device: str,
        *,
        load: LoadModel,
        owns_plan: bool = False,
        options: DeviceOptions = DEFAULT_OPTIONS,
        beside: "Engine | None" = None,
    ) -> None:
        self.plan = plan
        self._asked = device
        self._load = load
        self._options = options
        self._owns_plan = owns_plan
        self._graph = thaw(plan, chosen_limits(options.limits))
        states = self._graph.states
        self.states = None if states is None else StateLayout(self._graph, states)
        """What of the plan's inputs and outputs lives in contexts, and is nobody's to give; None where nothing does."""
        given = range(len(self._graph.inputs)) if self.states is None else self.states.given
        handed = range(len(self._graph.outputs)) if self.states is None else self.states.handed
        self._places = tuple(given)
        """For each input of a caller's its number among the graph's."""
        defaults = self._graph.defaults
        self.inputs = tuple(Binding(v.name, v.type, defaults.get(v.name)) for v in (self._graph.inputs[i] for i in given))
        self._names = tuple(b.name for b in self.inputs)
        self._taken: set[Any] = set()
        """Names, types and shapes of inputs that were found to fit, and taken as they were."""
        self.constant_inputs = constant_inputs(plan)
        """Inputs of the model that are constants of the plan, since they have an initializer."""
        self.outputs = tuple(Binding(self._graph.output_names[i], self._graph.outputs[i].type) for i in handed)
        self.ranges = {r.name: r for r in plan.ranges}
        self._graphs = BranchedGraphs(self._graph)
        vet = vet_for(options)
        other = None if beside is None else beside.model
        self._model: LoadedModel | None = load(self._graph, device, options, plan.report.options, other)
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
        threads take turns; for concurrency give each thread a ``create_context()``. A plan with states begins each time with
        empty ones: a context keeps them from one run to the next. Raises UsageError when an input does not fit its binding.
        """
        with self._run_lock:
            if self._context is None:
                self._context = self.create_context()
            if self.states is not None:
                self._context.reset()
            return self._context.run(inputs)

    def create_context(self) -> Context:
        """One more context: an arena of its own over the shared weights."""
        with self._lock:
            context = Context(self)
            self._contexts.add(context)
            return context

    def beside(self, device: str) -> "Engine":
        """An engine of the same plan with the same options on another device, a GPU where this one is on a GPU.

        Its weights are copied from here. It must be closed before this one. Raises DeviceError and UsageError as ``load`` does.
        """
        return Engine(self.plan, device, load=self._load, options=self._options, beside=self)

    @property
    def host_inputs(self) -> frozenset[str]:
        """Names of the inputs whose contents may decide shapes or branches: they are wanted on the host."""
        return frozenset(b.name for b, i in zip(self.inputs, self._places, strict=False) if i in self._graphs.host_inputs)

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
        model, kinds = self.model, _plain_kinds(inputs)
        if kinds in self._taken:
            return [inputs[name] for name in self._names]
        arrays = self.check_for(self.inputs, self.ranges, inputs)
        if kinds is not None and [id(a) for a in arrays] == [id(inputs.get(name)) for name in self._names]:
            if len(self._taken) >= _TAKEN:
                self._taken.clear()
            self._taken.add(kinds)
        return [
            model.fetch(a) if i in self._graphs.host_inputs and a is not None and not isinstance(a, (np.ndarray, list)) else a
            for i, a in zip(self._places, arrays, strict=False)
        ]

    def check_for(
        self, bindings: tuple[Binding, ...], ranges: Mapping[str, DimensionRange], inputs: Mapping[str, Any]
    ) -> list[Any]:
        """Like ``check`` of ``inputs``, for ``bindings`` with ``ranges`` of their sizes in the place of the engine's own."""
        model = self.model
        if not isinstance(inputs, Mapping):
            name = self.inputs[0].name if self.inputs else "x"
            raise UsageError(
                f"inputs: expected a dict of names and arrays, got {type(inputs).__name__}",
                hint=f"give it by name, {{{name!r}: array}}; the plan's inputs are {', '.join(map(str, self.inputs))}",
            )
        adopted = {name: value if (found := model.adopt(name, value)) is None else found for name, value in inputs.items()}
        return check_inputs(bindings, ranges, adopted, self.constant_inputs)

    def program(self, arrays: list[Any]) -> Program:
        """The program for inputs like ``arrays`` (in binding order), made now if there is none yet.

        With states it is that of the first inference of a context. Raises UsageError when the engine is closed.
        """
        return self.whole_program(self.whole_inputs(arrays))

    def whole_program(self, arrays: list[Any]) -> Program:
        """Like ``program``, for ``arrays`` that are all inputs of the graph, those that are states too."""
        if self.allowance != UNBOUNDED and current() is None:  # for somebody who only looks at it
            with self.make_budget().inference(arrays):
                return self.whole_program(arrays)
        _ = self.model
        branched = self._branched(arrays)

        def make() -> Program:
            return self.model.make_program(self._types(arrays, branched), branched.graph)

        return self._programs.get((branched.path, *(_key(a, i in branched.shape_inputs) for i, a in enumerate(arrays))), make)

    def graph_for(self, arrays: list[Any]) -> tuple[Graph, list[Type | None]]:
        """What ``program`` makes a program of for inputs like ``arrays``: the graph, with the branches they choose, and types."""
        arrays = self.whole_inputs(arrays)
        branched = self._branched(arrays)
        return branched.graph, self._types(arrays, branched)

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

    def __reduce_ex__(self, protocol: Any) -> Any:
        plan = self.plan
        if self._model is None:
            raise UsageError(f"{self!r} cannot be pickled", hint="load the plan again: miniinfer_cli.load(plan)")
        if plan.file is None or not plan.file.holds(plan):
            raise UsageError(
                f"{self!r} cannot be pickled: its plan is in no file that another process could open",
                hint="write the plan to a file, and load it from there: build(model, path), load(path)",
            )
        return _reopen, (str(Path(plan.path).absolute()), plan.digest, self._asked, self._options, self._load)

    def __copy__(self) -> NoReturn:
        self._refuse_to_copy()

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self._refuse_to_copy()

    def __repr__(self) -> str:
        state = ", closed" if self._model is None else ""
        return f"<Engine on {self.device}: {_few(self.inputs)} -> {_few(self.outputs)}{state}>"

    def _repr_html_(self) -> str:
        """The inputs and outputs in a table, for notebooks."""
        return engine_html(self.device, self.inputs, self.outputs, ", closed" if self._model is None else "")

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def whole_inputs(self, arrays: list[Any]) -> list[Any]:
        """All inputs of the graph beside a caller's ``arrays``, for the program that comes first while states hold nothing."""
        return arrays if self.states is None else self.states.first_inputs(arrays)

    def _branched(self, arrays: list[Any]) -> BranchedGraph:
        return self._graphs.choose(arrays, lambda: [self._type(i, a) for i, a in enumerate(arrays)])

    def _types(self, arrays: list[Any], branched: BranchedGraph) -> list[Type | None]:
        return [self._type(i, a, contents=i in branched.shape_inputs) for i, a in enumerate(arrays)]

    def _type(self, number: int, value: Any, *, contents: bool = False) -> Type | None:
        declared = self._graph.inputs[number].type
        if not isinstance(declared, TensorType) or not hasattr(value, "shape"):
            return declared
        return TensorType(declared.dtype, value.shape, value.copy() if contents else None)


def _reopen(path: str, digest: str, device: str, options: DeviceOptions, load: LoadModel) -> Engine:
    """The engine of a plan that another process had open, opened here. Raises PlanFileError when another plan lies there."""
    plan = open_plan(path, digest)
    try:
        return Engine(plan, device, load=load, owns_plan=True, options=options)
    except BaseException:
        plan.close()
        raise


def _plain_kinds(inputs: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Names, types and shapes of inputs that are numpy's arrays of numbers: what decides whether they fit. None for others."""
    if type(inputs) is not dict:
        return None
    values = inputs.values()
    if any(type(v) is not np.ndarray or v.dtype.hasobject for v in values):
        return None
    return (*inputs, *[(v.dtype, v.shape) for v in values])


def _key(value: Any, contents: bool) -> Any:
    if value is None or isinstance(value, list) or not hasattr(value, "shape"):
        return type(value)
    return (value.shape, value.tobytes() if contents else None)


def _few(bindings: Sequence[Binding]) -> str:
    more = [f"{len(bindings) - _SHOWN} more"] if len(bindings) > _SHOWN else []
    return ", ".join([*map(str, bindings[:_SHOWN]), *more])
