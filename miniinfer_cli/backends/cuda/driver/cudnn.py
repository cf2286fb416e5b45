"""Convolutions and attention by cuDNN's graphs, through nvidia-cudnn-frontend.

A problem becomes a graph of cuDNN operations; the heuristic lists engines for it, and the first that builds is the plan.
Building costs milliseconds (0.1 s for the first of a process), so plans are kept serialized in the tactic cache.
"""

import math
import threading
import time
from typing import TYPE_CHECKING, Any

from miniinfer_cli.backends.cuda.contract.problems import Compute, ConvolutionProblem, Variant
from miniinfer_cli.backends.cuda.driver.cudnn_graphs import Problem, descriptions
from miniinfer_cli.backends.cuda.driver.cudnn_names import plan_in, variant_of, with_plan, without_plan
from miniinfer_cli.backends.cuda.driver.cudnn_prepared import PreparedGraph, first_line
from miniinfer_cli.backends.cuda.driver.hidden_modules import hidden
from miniinfer_cli.backends.cuda.driver.library_loading import HINT, load_library
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType

if TYPE_CHECKING:
    from miniinfer_cli.backends.cuda.driver.device import Device

WORKSPACE_LIMIT = 256 << 20
_KIND = "cudnn"


class Cudnn:
    """cuDNN on one device, with a handle for each stream. What it prepared must not be used after close()."""

    def __init__(self, device: "Device", cache: TacticCache | None = None) -> None:
        """Loads the library and its front end. Raises DeviceError where either is absent."""
        self._device = device
        self._cache = cache
        # The front end looks in fewer places; it finds by its name what is loaded already.
        load_library("cudnn")
        try:
            # It imports torch where it can, for conveniences that nothing here uses; that takes seconds.
            with hidden("torch"):
                import cudnn
        except ImportError as error:
            raise DeviceError(f"nvidia-cudnn-frontend cannot be imported: {error}", hint=HINT) from error
        self._cudnn: Any = cudnn
        self.faults: tuple[type[Exception], ...] = (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError, SystemError)
        """What the front end raises: the first for what is not supported, the others for that and for failures too.

        SystemError is what becomes of these where another library's translators of exceptions fail: they are shared by all that
        is bound in the same way, and an import of torch that was broken off leaves some behind.
        """
        try:
            self.version = str(cudnn.backend_version_string())
            """For example ``9.19.0``."""
        except RuntimeError as error:
            raise DeviceError(f"cuDNN cannot be used: {first_line(error)}", hint=HINT) from error
        self.lock = threading.RLock()
        """Held while plans are built, restored or serialized."""
        self._builder = 0
        self._handles: dict[int, int] = {}
        self._spare: list[int] = []  # of streams that went
        self._prepared: dict[tuple[Problem, Variant | None, int], PreparedGraph | None] = {}
        self._refusals: dict[Problem, str] = {}

    def __enter__(self) -> "Cudnn":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Destroys plans and handles; never during a capture. Closing twice is no error."""
        with self.lock:
            self._prepared.clear()
            handles = [*self._handles.values(), *self._spare, *([self._builder] if self._builder else [])]
            self._handles.clear()
            self._spare.clear()
            self._builder = 0
            if handles:
                self._device.make_current()
            for handle in handles:
                self._cudnn.destroy_handle(handle)

    def bind(self, stream_handle: int) -> None:
        """Gives the stream a handle: before its first enqueue(), and not during a capture. Binding twice is no error."""
        with self.lock:
            if stream_handle not in self._handles:
                handle = self._spare.pop() if self._spare else self._make_handle()
                self._cudnn.set_stream(handle=handle, stream=stream_handle)
                self._handles[stream_handle] = handle

    def unbind(self, stream_handle: int) -> None:
        """Takes the stream's handle back, if it has one: before the stream goes, and not during a capture.

        The next stream gets it. Making one and destroying it leaves 5 KiB of the device's memory taken (cuDNN 9.19).
        """
        with self.lock:
            handle = self._handles.pop(stream_handle, 0)
            if handle:
                self._device.make_current()
                self._cudnn.set_stream(handle=handle, stream=0)
                self._spare.append(handle)

    def handle_for(self, stream_handle: int) -> int:
        """The handle that bind() made for the stream. Raises ValueError where there is none."""
        handle = self._handles.get(stream_handle)
        if handle is None:
            raise ValueError(f"stream {stream_handle:#x} is not bound to cuDNN: bind() it before")
        return handle

    def prepare(
        self, problem: Problem, variant: Variant | None = None, *, workspace_limit: int = WORKSPACE_LIMIT
    ) -> PreparedGraph | None:
        """The kept plan for the problem, else the heuristic's first that builds, of at most ``workspace_limit`` bytes.

        ``variant``: the plan that it says instead; None where the library refuses it.
        None: the library cannot (refusal() says why); a graph without the activation or the residual may be possible then.
        Equal problems give the same object. Any thread may call it, but not during a capture of its own. Raises ValueError
        for a problem that contradicts itself.
        """
        with self.lock:
            key = (problem, variant, workspace_limit)
            if key not in self._prepared and variant is not None:
                self._prepared[key] = self._again(problem, variant, workspace_limit)
            elif key not in self._prepared:
                kept = self._restore(problem)
                prepared = kept
                if kept is None or kept.workspace_nbytes > workspace_limit:
                    found = self.candidates(problem, 1, workspace_limit=workspace_limit)
                    prepared = found[0] if found else None
                    # One that only is too large here stays: another caller chose it.
                    if prepared is not None and kept is None and self._cache is not None:
                        self._cache.put(_KIND, self._key(problem), prepared.serialize())
                self._prepared[key] = prepared
            return self._prepared[key]

    def candidates(self, problem: Problem, count: int = 8, *, workspace_limit: int = WORKSPACE_LIMIT) -> list[PreparedGraph]:
        """Up to ``count`` built plans, the one that the heuristic thinks fastest first. Raises as prepare() does.

        Plans whose results may differ from run to run are left out, and so is every rounding of f32 operands unless the
        problem allows it.
        """
        return self._built(problem, count, workspace_limit)

    def variants(self, problem: Problem, count: int, seconds: float, *, workspace_limit: int = WORKSPACE_LIMIT) -> list[Variant]:
        """Up to ``count`` other plans than the one that prepare() takes, the heuristic's order; see protocols.Libraries.

        They are built, and prepare() gives each by its variant.
        """
        with self.lock:
            default = self.prepare(problem, workspace_limit=workspace_limit)
            if default is None:
                return []
            found = self._built(problem, count + 1, workspace_limit, seconds=seconds)
            others = {p.variant: p for p in found if p.variant != default.variant}
            for variant, prepared in others.items():
                self._prepared.setdefault((problem, variant, workspace_limit), prepared)
            return list(others)[:count]

    def to_record(self, problem: Problem, variant: Variant | None) -> Variant | None:
        """The variant, or the plan that prepare() takes by itself, with its serialized plan: restoring takes less than building.

        What was restored here is built again for that. None where the library cannot.
        """
        with self.lock:
            prepared = self.prepare(problem, variant)
            if prepared is None:
                return None
            if variant is not None and plan_in(variant, problem) is not None:
                return variant
            variant = without_plan(prepared.variant if variant is None else variant)
            plan = prepared.plan()
            if not plan:
                again = self._built(problem, 1, WORKSPACE_LIMIT, only=variant)
                plan = again[0].plan() if again else b""
            return with_plan(variant, problem, plan) if plan else variant

    def _built(
        self, problem: Problem, count: int, workspace_limit: int, *, seconds: float = math.inf, only: Variant | None = None
    ) -> list[PreparedGraph]:
        """The first plans that build, of engine and knobs of ``only`` if given; no further one once ``seconds`` have passed."""
        modes, started = self._cudnn.heur_mode, time.monotonic()
        with self.lock:
            reason = ""
            for describe in descriptions(problem):
                try:
                    graph = self._new_graph()
                    describe(self._cudnn, graph)
                    graph.validate()
                    graph.build_operation_graph()
                    graph.create_execution_plans([modes.A, modes.FALLBACK])
                    graph.deselect_numeric_notes(self._unwanted(problem))
                    graph.deselect_workspace_greater_than(workspace_limit)
                except self.faults as error:
                    reason = first_line(error)
                    continue
                found: list[PreparedGraph] = []
                for index in range(graph.get_execution_plan_count()):
                    try:
                        name = str(graph.get_plan_name_at_index(index))
                        if only is not None and variant_of(name) != only:
                            continue
                        graph.build_plan_at_index(index)
                        found.append(PreparedGraph(self, problem, graph, index, name))
                    except self.faults as error:
                        reason = first_line(error)
                    if len(found) == count or time.monotonic() - started > seconds:
                        break
                if found:
                    return found
            if only is None:
                self._refusals[problem] = reason or "no description of it in cuDNN's terms"
            return []

    def _again(self, problem: Problem, variant: Variant, workspace_limit: int) -> PreparedGraph | None:
        """The plan of a variant: its serialized one, or where the library refuses that, the one of its engine and knobs."""
        plan = plan_in(variant, problem)
        restored = None if plan is None else self._deserialized(problem, "", plan)
        if restored is not None and restored.workspace_nbytes <= workspace_limit:
            return restored
        only = without_plan(variant)
        found = self._built(problem, 1, workspace_limit, only=only)
        return found[0] if found else None

    def refusal(self, problem: Problem) -> str:
        """Why the library could not prepare the problem, in its own words; empty where it could or was not asked."""
        return self._refusals.get(problem, "")

    def _restore(self, problem: Problem) -> PreparedGraph | None:
        """The cached plan, None where there is none or the library refuses it."""
        kept = self._cache.get(_KIND, self._key(problem)) if self._cache is not None else None
        if kept is None:
            return None
        name, _, plan = kept.partition(b"\0")
        return self._deserialized(problem, name.decode(errors="replace"), plan)

    def _deserialized(self, problem: Problem, name: str, plan: bytes) -> PreparedGraph | None:
        """A plan that the library serialized; None where it refuses it."""
        graph = self._new_graph()
        try:
            # The front end takes a list of numbers, no bytes. It also captures the plan once on a stream of its own, which
            # loads the kernels.
            graph.deserialize(self._builder, list(plan))
            return PreparedGraph(self, problem, graph, 0, name, restored=True)
        except self.faults:
            return None

    def _new_graph(self) -> Any:
        types = self._cudnn.data_type
        self._device.make_current()
        if not self._builder:
            self._builder = self._make_handle()
        return self._cudnn.pygraph(
            handle=self._builder, intermediate_data_type=types.FLOAT, compute_data_type=types.FLOAT, name="miniinfer"
        )

    def _make_handle(self) -> int:
        self._device.make_current()
        try:
            return int(self._cudnn.create_handle())
        except RuntimeError as error:
            raise DeviceError(f"cuDNN gave no handle: {first_line(error)}") from error

    def _unwanted(self, problem: Problem) -> list[Any]:
        notes = self._cudnn.numerical_note
        unwanted = [notes.NONDETERMINISTIC]
        if isinstance(problem, ConvolutionProblem) and problem.dtype is DType.F32 and problem.compute is Compute.F32:
            # cuDNN's engines on tensor cores read f32 operands as TF32.
            unwanted += [notes.TENSOR_CORE, notes.DOWN_CONVERT_INPUTS, notes.REDUCED_PRECISION_REDUCTION]
        return unwanted

    def _key(self, problem: Problem) -> str:
        front = self._cudnn.__version__
        return f"{self._device.name} sm_{self._device.arch} cuDNN {self.version} front end {front} {problem!r}"
