"""A model on a GPU: its weights, kernels, libraries and programs; what its contexts share."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from engine_format import TacticRecord, TargetSection
from miniinfer_cli.backends.choosing import HEURISTIC, Policy
from miniinfer_cli.backends.cuda.arrays.counts import CaptureCounts, CopyCounts, ModelStats
from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray, from_object
from miniinfer_cli.backends.cuda.arrays.registered import HostRows, host_rows
from miniinfer_cli.backends.cuda.arrays.transfers import Transfers
from miniinfer_cli.backends.cuda.choice.forcing import expect_forced
from miniinfer_cli.backends.cuda.choice.stored import gpu_of, note_on_foreign, records_for
from miniinfer_cli.backends.cuda.choice.table import RecordTable
from miniinfer_cli.backends.cuda.contexts.context import ContextOptions, CudaContext
from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant
from miniinfer_cli.backends.cuda.contract.program import CudaProgram
from miniinfer_cli.backends.cuda.contract.protocols import Device, Functions, Libraries, Memory, Stream
from miniinfer_cli.backends.cuda.contract.steps import Derived, Kernel
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.driver.fork_guard import ForkGuard
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.nvml import GpuMonitor
from miniinfer_cli.backends.cuda.hosting.control import type_of
from miniinfer_cli.backends.cuda.loading.last_use import OF_THE_PROCESS
from miniinfer_cli.backends.cuda.loading.loaded_program import LoadedProgram
from miniinfer_cli.backends.cuda.loading.target_sections import stored_kernels
from miniinfer_cli.backends.cuda.loading.weights import DeviceWeights
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.models.foresight import Foresight
from miniinfer_cli.backends.interface import Vet
from miniinfer_cli.backends.kept_programs import KeptPrograms
from miniinfer_cli.ir import Array, Graph, TensorType, Type
from miniinfer_cli.ops.budget import unlimited
from miniinfer_cli.planning.shape_values import shape_inputs

_NESTED = 512  # programs of sub-graphs that are kept, some 100 KB each: a loop whose shapes grow must not pile them up


@dataclass(frozen=True, slots=True)
class Recompiled:
    """Kernels that the plan holds in sections that are not trusted, and that had to be compiled; and the seconds for it."""

    kernels: int = 0
    seconds: float = 0.0

    @property
    def note(self) -> str:
        """What the user is told."""
        count = f"{self.kernels} kernel{'s' * (self.kernels > 1)} of the plan"
        return (
            f"{count} compiled again into the cache in {self.seconds:.1f} s, since no key known here signed the plan's own:"
            " --trust-key FILE (trust_key=) or --trust-targets always (trust_targets=) avoids it"
        )


class CudaModel:
    """See backends.interface.LoadedModel. ``device`` is its name, as flags spell it; the GPU is ``gpu``.

    ``beside``: a model of the same plan on another GPU, from which the weights are copied.
    """

    def __init__(
        self,
        graph: Graph,
        gpu: Device,
        functions: Functions,
        libraries: Libraries,
        *,
        tf32: bool,
        options: ContextOptions,
        policy: Policy = HEURISTIC,
        beside: "CudaModel | None" = None,
    ) -> None:
        self.device = f"cuda:{gpu.ordinal}"
        self.gpu = gpu
        self.fork_guard = ForkGuard(self.device)
        self.functions = functions
        self.libraries = libraries
        self.transfers = Transfers(gpu)
        self.copies = CopyCounts()
        self._copies_lock = threading.Lock()
        self.capture_lock = threading.Lock()
        self.capture_counts = CaptureCounts()
        self.options = options
        self._graph = graph
        self._lock = threading.RLock()
        self._nested: KeptPrograms[LoadedProgram] = KeptPrograms(_NESTED)
        self._shape_inputs: WeakKeyDictionary[Graph, frozenset[int]] = WeakKeyDictionary()
        self._closed = False
        self._notes: tuple[str, ...] = ()
        self._table: RecordTable | None = None
        self._cached: tuple[TacticRecord, ...] = ()
        self._planned: tuple[TacticRecord, ...] = ()
        self._recompiled = Recompiled()
        self.target = Target(
            arch=gpu.arch,
            multiprocessors=gpu.multiprocessors,
            shared_nbytes=gpu.shared_nbytes,
            tf32=tf32,
            supports=self._supports,
            supports_variant=self._supports_variant,
            solved_by=libraries.solved_by,
            policy=policy,
        )
        self._foresight: Foresight | None = None
        OF_THE_PROCESS.note()
        gpu.make_current()
        others: DeviceWeights | None = None if beside is None else beside.weights
        try:
            self.weights: DeviceWeights = DeviceWeights(gpu, self.transfers, graph, self.evaluate, others)
        except BaseException:
            self.transfers.close()
            raise

    def use_targets(self, targets: Sequence[TargetSection], vet: Vet) -> None:
        """See LoadedModel."""
        arch = self.gpu.arch
        ours = [t for t in targets if t.arch == f"sm_{arch}"]
        taken = [t for t in map(vet, ours) if t is not None]
        kernels, notes = stored_kernels(taken if ours else targets, arch)
        gpu = gpu_of(self.gpu)
        self._planned = records_for(taken, arch, gpu)
        self._notes = (*notes, *note_on_foreign(targets, arch, gpu))
        self._take_records()
        self.functions.use_stored(kernels)
        refused = frozenset(k.source for t in ours for k in t.kernels).difference(kernels)
        if refused:
            self.functions.refuse(refused, self._count_recompiled)

    def use_timing_cache(self, sections: Sequence[TargetSection]) -> None:
        """Lets what a timing cache holds for this GPU choose where the plan does not."""
        self._cached = records_for(sections, self.gpu.arch, gpu_of(self.gpu))
        self._take_records()

    def _take_records(self) -> None:
        if self._planned or self._cached:
            self._table = RecordTable(self._planned, self._cached)
            self.target = replace(self.target, policy=replace(self.target.policy, table=self._table))

    def compile_ahead(self, cache: KernelCache, is_there: Callable[[Kernel], bool]) -> None:
        """Lets kernels for other sizes be compiled into ``cache`` in idle moments, but those that are there already."""
        likely = replace(self.target, supports=self.libraries.is_likely)
        self._foresight = Foresight(likely, cache, lambda: OF_THE_PROCESS.at, is_there)

    @property
    def notes(self) -> tuple[str, ...]:
        """See LoadedModel."""
        passed_over = () if self._table is None else self._table.notes
        return (*self._notes, *([self._recompiled.note] if self._recompiled.kernels else []), *passed_over)

    def _count_recompiled(self, kernels: int, seconds: float) -> None:
        with self._lock:
            self._recompiled = Recompiled(self._recompiled.kernels + kernels, self._recompiled.seconds + seconds)

    def make_program(self, inputs: Sequence[Type | None], branched: Graph | None = None) -> LoadedProgram:
        """See LoadedModel."""
        graph = self._graph if branched is None else branched
        self.fork_guard.check()
        self.gpu.make_current()
        made = make_program(graph, inputs, self.target, self.weights.holds)
        expect_forced(made, self.target.policy)
        program = LoadedProgram(made, self)
        if self._foresight is not None:
            self._foresight.begin(inputs, graph)
        return program

    def make_context(self) -> CudaContext:
        """See LoadedModel."""
        self.fork_guard.check()
        return CudaContext(self, self.options)

    def facts(self) -> dict[str, Any]:
        """See LoadedModel."""
        gpu = self.gpu
        return {
            "name": gpu.name,
            "arch": f"sm_{gpu.arch}",
            "multiprocessors": gpu.multiprocessors,
            "memory_bytes": gpu.total_memory,
            "driver": ".".join(map(str, gpu.driver_version)),
        }

    def adopt(self, name: str, value: Any) -> DeviceArray | None:
        """See LoadedModel."""
        self.fork_guard.check()
        return from_object(name, value, self.gpu.ordinal)

    def fetch(self, value: DeviceArray, stream: Stream | None = None) -> Array:
        """See LoadedModel. ``stream``: the one that writes the array, where it is ours."""
        if stream is None:
            return self.transfers.fetch(value)
        array = np.empty(value.shape, value.dtype)
        stream.copy_to_host(array.ctypes.data, value.address, array.nbytes)
        stream.synchronize()
        return array

    def rows(self, arrays: Sequence[Array], repeats: int) -> HostRows | None:
        """See LoadedModel."""
        return host_rows(arrays, repeats)

    def state(self) -> dict[str, Any]:
        """See LoadedModel: the fields of driver.nvml.GpuState."""
        with GpuMonitor(self.gpu.properties.pci_bus_id) as monitor:
            return asdict(monitor.sample())

    def stats(self) -> dict[str, Any]:
        """See LoadedModel."""
        found = ModelStats(
            weights=self.weights.counts,
            host_copies=self.copies,
            cuda_graphs=self.capture_counts,
            device_allocations=self.gpu.allocations,
            libraries_missing=dict(self.libraries.missing),
        )
        return asdict(found)

    def nested_program(
        self, graph: Graph, inputs: Sequence[Any], stream: Stream, *, late: bool
    ) -> tuple[LoadedProgram, list[Any]]:
        """The program of a sub-graph for these inputs, made at first need; and the inputs, on the host if they decide shapes.

        ``stream`` is the one that writes the inputs. ``late``: whether the program may have late parts.
        """
        with self._lock:
            deciding = self._shape_inputs.get(graph)
            if deciding is None:
                deciding = self._shape_inputs[graph] = shape_inputs(graph)
        values = [self.fetch(v, stream) if i in deciding and isinstance(v, DeviceArray) else v for i, v in enumerate(inputs)]
        types = [type_of(v, formal.type) for v, formal in zip(values, graph.inputs, strict=True)]
        contents = []
        for number in sorted(deciding):
            kind, value = types[number], values[number]
            if isinstance(kind, TensorType) and isinstance(value, np.ndarray):
                types[number] = TensorType(kind.dtype, kind.shape, value.copy())
                contents.append(value.tobytes())
        kinds = ((t.dtype, t.shape) if isinstance(t, TensorType) else str(t) for t in types)
        key = (graph, late, self.target.policy.table, *contents, *kinds)  # a tuner makes programs by one table after the other

        def make() -> LoadedProgram:
            return LoadedProgram(make_program(graph, types, self.target, self.weights.holds, late=late), self)

        return self._nested.get(key, make), values

    def count_fetch(self, nbytes: int) -> None:
        """Notes a copy to the host for a host step."""
        with self._copies_lock:
            self.copies.fetches += 1
            self.copies.fetched_nbytes += nbytes

    def count_send(self, nbytes: int) -> None:
        """Notes a copy to the device of a host step's result."""
        with self._copies_lock:
            self.copies.sends += 1
            self.copies.sent_nbytes += nbytes

    def close(self) -> None:
        """Frees weights, kernels and libraries; may be called twice. Contexts are closed before."""
        if self._closed:
            return
        self._closed = True
        if self.fork_guard.is_child:
            return  # all of it is the parent's, which goes on with it
        if self._foresight is not None:
            self._foresight.close()
        with contextlib.ExitStack() as stack:  # which goes on when one of them fails
            for owned in (self.gpu, self.functions, self.libraries, self.transfers, self.weights):
                stack.callback(owned.close)
            stack.callback(self._nested.close)

    def _supports(self, problem: Problem) -> bool:
        return self.libraries.prepare(problem) is not None

    def _supports_variant(self, problem: Problem, variant: Variant) -> bool:
        return self.libraries.prepare(problem, variant) is not None

    def program_of(self, derived: Derived) -> CudaProgram:
        """The program that computes a derived form."""
        graph = Graph(derived.key)
        outputs = graph.inline(derived.graph, [graph.add_constant(s) for s in derived.sources])
        graph.set_outputs(outputs)
        unforced = replace(self.target, policy=Policy(disabled=self.target.policy.disabled), watch=None)
        return make_program(graph, (), unforced)

    def evaluate(self, derived: Derived) -> Memory:
        """Device memory with a derived form, computed by a program of its own."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(unlimited())
            program = LoadedProgram(self.program_of(derived), self, once=True)
            stack.callback(program.close)
            context = CudaContext(self, ContextOptions(cuda_graph=False, overlap=False))
            stack.callback(context.close)
            (result,) = context.enqueue(program, (), on_device=True).result()
            memory = self.gpu.allocate(result.nbytes, "memory for a weight in another form")
            try:
                context.compute.copy_on_device(memory.address, result.address, result.nbytes)
                context.compute.synchronize()
            except BaseException:
                memory.close()
                raise
            return memory
