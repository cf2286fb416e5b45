"""Convolutions and attention by cuDNN's graphs, through nvidia-cudnn-frontend.

A problem becomes a graph of cuDNN operations; the heuristic lists engines for it, and the first that builds is the plan.
Building costs milliseconds (0.1 s for the first of a process), so plans are kept serialized in the tactic cache.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from miniinfer_cli.backends.cuda.driver.library_loading import HINT, load_library
from miniinfer_cli.backends.cuda.driver.tactic_cache import TacticCache
from miniinfer_cli.backends.cuda.problems import AttentionProblem, ConvolutionProblem
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType

if TYPE_CHECKING:
    from miniinfer_cli.backends.cuda.driver.device import Device

WORKSPACE_LIMIT = 256 << 20
ALIGNMENT = 16
"""Bytes of which every operand's address must be a multiple: what the front end declares of each tensor."""
_KIND = "cudnn"
_DTYPES = {DType.F32: "FLOAT", DType.F16: "HALF", DType.BF16: "BFLOAT16"}

Problem = ConvolutionProblem | AttentionProblem
# A dimension or stride list, in cuDNN's order of axes: batch, channels, then the spatial ones.
Sizes = list[int]


class PreparedGraph:
    """One plan for one problem. Any thread may enqueue it, on any stream that was bound."""

    def __init__(self, owner: "Cudnn", problem: Problem, graph: Any, index: int, name: str, restored_from: bytes = b"") -> None:
        self.problem = problem
        self.name = name
        """The engine and its knobs, as the library spells them."""
        self._owner = owner
        self._graph = graph
        self._index = index
        self._restored_from = restored_from
        self._operands = _count_operands(problem)
        # A restored graph has one plan and no list of engines.
        self.workspace_nbytes = int(
            graph.get_workspace_size() if restored_from else graph.get_workspace_size_plan_at_index(index)
        )
        """Bytes of workspace that enqueue() must be given, on a multiple of 256."""

    def enqueue(self, stream_handle: int, addresses: Sequence[int], workspace: int = 0) -> None:
        """Puts the graph on a stream that bind() knows; the device must be the calling thread's current one.

        ``addresses``: in the order that the problem's class documents, each a multiple of 16. ``workspace``: the address of
        ``workspace_nbytes`` bytes that nothing else uses meanwhile. May be captured, once the plan has run before. Raises
        ValueError for addresses that do not fit or a stream that is not bound, DeviceError where the library refuses.
        """
        if len(addresses) != self._operands:
            raise ValueError(f"expected {self._operands} addresses, got {len(addresses)}")
        if any(address % ALIGNMENT for address in addresses):
            raise ValueError(f"operands must lie on multiples of {ALIGNMENT} bytes, got {', '.join(map(hex, addresses))}")
        if self.workspace_nbytes and not workspace:
            raise ValueError(f"{self.name} needs a workspace of {self.workspace_nbytes} bytes")
        handle = self._owner.handle_for(stream_handle)
        pack = dict(enumerate(addresses, start=1))
        try:
            if self._restored_from:
                self._graph.execute(pack, workspace, handle=handle)
            else:
                self._graph.execute_plan_at_index(pack, workspace, self._index, handle=handle)
        except self._owner.faults as error:
            raise DeviceError(f"cuDNN failed for {self.problem} by {self.name}: {_first_line(error)}") from error

    def serialize(self) -> bytes:
        """The plan, for the tactic cache of this machine; it holds machine code, so it is not for plan files."""
        if self._restored_from:
            return self._restored_from
        with self._owner.lock:
            # What is serialized is the plan that was chosen last; building it again only chooses it.
            self._graph.build_plan_at_index(self._index)
            return self.name.encode() + b"\0" + bytes(self._graph.serialize())


class Cudnn:
    """cuDNN on one device, with a handle for each stream. What it prepared must not be used after close()."""

    def __init__(self, device: "Device", cache: TacticCache | None = None) -> None:
        """Loads the library and its front end. Raises DeviceError where either is absent."""
        self._device = device
        self._cache = cache
        # The front end looks in fewer places; it finds by its name what is loaded already.
        load_library("cudnn")
        try:
            with _without("torch"):
                import cudnn
        except ImportError as error:
            raise DeviceError(f"nvidia-cudnn-frontend cannot be imported: {error}", hint=HINT) from error
        self._cudnn: Any = cudnn
        self.faults: tuple[type[Exception], ...] = (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError)
        """What the front end raises: the first for what is not supported, the others for that and for failures too."""
        try:
            self.version = str(cudnn.backend_version_string())
            """For example ``9.19.0``."""
        except RuntimeError as error:
            raise DeviceError(f"cuDNN cannot be used: {_first_line(error)}", hint=HINT) from error
        self.lock = threading.RLock()
        """Held while plans are built, restored or serialized."""
        self._builder = 0
        self._handles: dict[int, int] = {}
        self._prepared: dict[tuple[Problem, int], PreparedGraph | None] = {}
        self._refusals: dict[Problem, str] = {}

    def __enter__(self) -> "Cudnn":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Destroys plans and handles; never during a capture. Closing twice is no error."""
        with self.lock:
            self._prepared.clear()
            handles = [*self._handles.values(), *([self._builder] if self._builder else [])]
            self._handles.clear()
            self._builder = 0
            if handles:
                self._device.make_current()
            for handle in handles:
                self._cudnn.destroy_handle(handle)

    def bind(self, stream_handle: int) -> None:
        """Makes a handle for the stream: before its first enqueue(), and not during a capture. Binding twice is no error."""
        with self.lock:
            if stream_handle not in self._handles:
                handle = self._make_handle()
                self._cudnn.set_stream(handle=handle, stream=stream_handle)
                self._handles[stream_handle] = handle

    def unbind(self, stream_handle: int) -> None:
        """Destroys the stream's handle, if it has one: before the stream goes, and not during a capture."""
        with self.lock:
            handle = self._handles.pop(stream_handle, 0)
            if handle:
                self._device.make_current()
                self._cudnn.destroy_handle(handle)

    def handle_for(self, stream_handle: int) -> int:
        """The handle that bind() made for the stream. Raises ValueError where there is none."""
        handle = self._handles.get(stream_handle)
        if handle is None:
            raise ValueError(f"stream {stream_handle:#x} is not bound to cuDNN: bind() it before")
        return handle

    def prepare(self, problem: Problem, *, workspace_limit: int = WORKSPACE_LIMIT) -> PreparedGraph | None:
        """The kept plan for the problem, else the heuristic's first that builds, of at most ``workspace_limit`` bytes.

        None: the library cannot (refusal() says why); a graph without the activation or the residual may be possible then.
        Equal problems give the same object. Any thread may call it, but not during a capture of its own. Raises ValueError
        for a problem that contradicts itself.
        """
        with self.lock:
            key = (problem, workspace_limit)
            if key not in self._prepared:
                kept = self._restore(problem)
                prepared = kept
                if kept is None or kept.workspace_nbytes > workspace_limit:
                    found = self.candidates(problem, 1, workspace_limit=workspace_limit)
                    prepared = found[0] if found else None
                    # One that only is too large here stays: someone chose it.
                    if prepared is not None and kept is None and self._cache is not None:
                        self._cache.put(_KIND, self._key(problem), prepared.serialize())
                self._prepared[key] = prepared
            return self._prepared[key]

    def candidates(self, problem: Problem, count: int = 8, *, workspace_limit: int = WORKSPACE_LIMIT) -> list[PreparedGraph]:
        """Up to ``count`` built plans, the one that the heuristic thinks fastest first. Raises as prepare() does.

        Plans whose results may differ from run to run are left out, and so is every rounding of f32 operands unless the
        problem allows it.
        """
        modes = self._cudnn.heur_mode
        with self.lock:
            reason = ""
            for describe in _descriptions(problem):
                try:
                    graph = self._new_graph()
                    describe(self._cudnn, graph)
                    graph.validate()
                    graph.build_operation_graph()
                    graph.create_execution_plans([modes.A, modes.FALLBACK])
                    graph.deselect_numeric_notes(self._unwanted(problem))
                    graph.deselect_workspace_greater_than(workspace_limit)
                except self.faults as error:
                    reason = _first_line(error)
                    continue
                found: list[PreparedGraph] = []
                for index in range(graph.get_execution_plan_count()):
                    try:
                        graph.build_plan_at_index(index)
                        name = str(graph.get_plan_name_at_index(index))
                        found.append(PreparedGraph(self, problem, graph, index, name))
                    except self.faults as error:
                        reason = _first_line(error)
                    if len(found) == count:
                        break
                if found:
                    return found
            self._refusals[problem] = reason or "no description of it in cuDNN's terms"
            return []

    def refusal(self, problem: Problem) -> str:
        """Why the library could not prepare the problem, in its own words; empty where it could or was not asked."""
        return self._refusals.get(problem, "")

    def keep(self, prepared: PreparedGraph) -> None:
        """Makes prepare() give this plan for its problem from now on, in later processes too if the cache has a folder."""
        with self.lock:
            if self._cache is not None:
                self._cache.put(_KIND, self._key(prepared.problem), prepared.serialize())
            for key in [k for k in self._prepared if k[0] == prepared.problem and k[1] >= prepared.workspace_nbytes]:
                self._prepared[key] = prepared

    def _restore(self, problem: Problem) -> PreparedGraph | None:
        """The cached plan, None where there is none or the library refuses it."""
        kept = self._cache.get(_KIND, self._key(problem)) if self._cache is not None else None
        if kept is None:
            return None
        name, _, plan = kept.partition(b"\0")
        graph = self._new_graph()
        try:
            # The front end takes a list of numbers, no bytes. It also captures the plan once on a stream of its own, which
            # loads the kernels.
            graph.deserialize(self._builder, list(plan))
            return PreparedGraph(self, problem, graph, 0, name.decode(errors="replace"), restored_from=kept)
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
            raise DeviceError(f"cuDNN gave no handle: {_first_line(error)}") from error

    def _unwanted(self, problem: Problem) -> list[Any]:
        notes = self._cudnn.numerical_note
        unwanted = [notes.NONDETERMINISTIC]
        if isinstance(problem, ConvolutionProblem) and problem.dtype is DType.F32 and problem.compute == "f32":
            # cuDNN's engines on tensor cores read f32 operands as TF32.
            unwanted += [notes.TENSOR_CORE, notes.DOWN_CONVERT_INPUTS, notes.REDUCED_PRECISION_REDUCTION]
        return unwanted

    def _key(self, problem: Problem) -> str:
        front = self._cudnn.__version__
        return f"{self._device.name} sm_{self._device.arch} cuDNN {self.version} front end {front} {problem!r}"


# Adds the problem's operations to a graph of the front end: cudnn (the module), graph. Tensors are numbered from 1 in the
# order of the problem's operands.
Describe = Callable[[Any, Any], None]


def _descriptions(problem: Problem) -> Iterable[Describe]:
    """The ways to put the problem as a graph, the likeliest first."""
    if problem.dtype not in _DTYPES:
        return
    if isinstance(problem, AttentionProblem):
        yield lambda cudnn, graph: _describe_attention(cudnn, graph, problem)
        return
    if not _is_consistent(problem):
        raise ValueError(f"the shapes do not belong together: {problem}")
    yield lambda cudnn, graph: _describe_convolution(cudnn, graph, problem, bias_first=True)
    if problem.bias and problem.residual:
        # The precompiled engines know the sum in this order only.
        yield lambda cudnn, graph: _describe_convolution(cudnn, graph, problem, bias_first=False)


def _describe_convolution(cudnn: Any, graph: Any, problem: ConvolutionProblem, *, bias_first: bool) -> None:
    dtype = getattr(cudnn.data_type, _DTYPES[problem.dtype])
    p = _with_two_axes(problem)
    x_dims, w_dims, y_dims = (_channels_second(s) for s in (p.x_shape, p.w_shape, p.y_shape))

    def tensor(name: str, dims: Sizes, number: int) -> Any:
        return graph.tensor(dim=dims, stride=channels_last_strides(dims), data_type=dtype, name=name, uid=number)

    def shaped(result: Any) -> Any:
        # Said of every step rather than left to be inferred: a gradient's size cannot be.
        result.set_dim(y_dims)
        result.set_stride(channels_last_strides(y_dims))
        return result

    x, w = tensor("x", x_dims, 1), tensor("w", w_dims, 2)
    windows = {
        "pre_padding": list(p.pads_begin),
        "post_padding": list(p.pads_end),
        "stride": list(p.strides),
        "dilation": list(p.dilations),
    }
    if p.transposed:
        y = shaped(graph.conv_dgrad(loss=x, filter=w, **windows))
    else:
        y = shaped(graph.conv_fprop(image=x, weight=w, **windows))
    addends = []
    if p.bias:
        addends.append(tensor("bias", [1, y_dims[1], *(1 for _ in y_dims[2:])], 4))
    if p.residual:
        addends.append(tensor("z", y_dims, 4 + p.bias))
    for addend in addends if bias_first else reversed(addends):
        y = shaped(graph.add(a=y, b=addend))
    if p.activation:
        y = shaped(_ACTIVATIONS[p.activation](graph, y))
    y.set_output(True)
    y.set_data_type(dtype)
    y.set_uid(3)


def _describe_attention(cudnn: Any, graph: Any, p: AttentionProblem) -> None:
    dtype = getattr(cudnn.data_type, _DTYPES[p.dtype])

    def tensor(name: str, dims: Sizes, strides: Sequence[int], number: int) -> Any:
        return graph.tensor(dim=dims, stride=list(strides), data_type=dtype, name=name, uid=number)

    q = tensor("q", [p.batch, p.heads, p.q_length, p.size], p.q_strides, 1)
    k = tensor("k", [p.batch, p.kv_heads, p.kv_length, p.size], p.k_strides, 2)
    v = tensor("v", [p.batch, p.kv_heads, p.kv_length, p.v_size], p.v_strides, 3)
    options: dict[str, Any] = {"attn_scale": p.scale, "generate_stats": False, "name": "attention"}
    if p.mask_shape is not None:
        options["bias"] = tensor("mask", list(p.mask_shape), _dense_strides(p.mask_shape), 5)
    if p.causal:
        options["diagonal_alignment"] = cudnn.diagonal_alignment.TOP_LEFT
        options["diagonal_band_right_bound"] = 0
    y, _ = graph.sdpa(q=q, k=k, v=v, **options)
    y.set_output(True)
    y.set_dim([p.batch, p.heads, p.q_length, p.v_size])
    y.set_stride(list(p.y_strides))
    y.set_data_type(dtype)
    y.set_uid(4)


_ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda graph, x: graph.relu(input=x),
    "relu6": lambda graph, x: graph.relu(input=x, lower_clip=0.0, upper_clip=6.0),
    "sigmoid": lambda graph, x: graph.sigmoid(input=x),
    "tanh": lambda graph, x: graph.tanh(input=x),
    "swish": lambda graph, x: graph.swish(input=x),
    "gelu": lambda graph, x: graph.gelu(input=x),
    "gelu_tanh": lambda graph, x: graph.gelu_approx_tanh(input=x),
    "elu": lambda graph, x: graph.elu(input=x),
}


def channels_last_strides(dims: Sizes) -> Sizes:
    """Strides in elements of a dense channels-last tensor whose ``dims`` are batch, channels, spatial."""
    strides, step = [0] * len(dims), 1
    for axis in (1, *range(len(dims) - 1, 1, -1), 0):
        strides[axis] = step
        step *= dims[axis]
    return strides


def _channels_second(shape: tuple[int, ...]) -> Sizes:
    """A channels-last shape in cuDNN's order of axes."""
    return [shape[0], shape[-1], *shape[1:-1]]


def _dense_strides(shape: Sequence[int]) -> Sizes:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def _with_two_axes(p: ConvolutionProblem) -> ConvolutionProblem:
    """A convolution over one axis as one over two, the first of which is 1 high; cuDNN knows two and three."""
    if len(p.strides) != 1:
        return p
    return replace(
        p,
        x_shape=(p.x_shape[0], 1, *p.x_shape[1:]),
        w_shape=(p.w_shape[0], 1, *p.w_shape[1:]),
        y_shape=(p.y_shape[0], 1, *p.y_shape[1:]),
        strides=(1, *p.strides),
        dilations=(1, *p.dilations),
        pads_begin=(0, *p.pads_begin),
        pads_end=(0, *p.pads_end),
    )


def _is_consistent(p: ConvolutionProblem) -> bool:
    """True when the shapes follow from each other, which cuDNN does not check for every engine."""
    axes = len(p.strides)
    if not 1 <= axes <= 3 or any(len(s) != axes + 2 for s in (p.x_shape, p.w_shape, p.y_shape)):
        return False
    if any(len(s) != axes for s in (p.dilations, p.pads_begin, p.pads_end)) or p.activation not in {"", *_ACTIVATIONS}:
        return False
    # A transposed convolution takes from y's place to x's what an ordinary one takes from x's place to y's.
    wide, narrow = (p.y_shape, p.x_shape) if p.transposed else (p.x_shape, p.y_shape)
    if wide[0] != narrow[0] or narrow[-1] != p.w_shape[0] or wide[-1] != p.w_shape[-1] * p.group or p.w_shape[0] % p.group:
        return False
    for axis in range(axes):
        reach = p.dilations[axis] * (p.w_shape[1 + axis] - 1) + 1
        room = wide[1 + axis] + p.pads_begin[axis] + p.pads_end[axis] - reach
        if room < 0 or room // p.strides[axis] + 1 != narrow[1 + axis]:
            return False
    return True


def _count_operands(p: Problem) -> int:
    if isinstance(p, AttentionProblem):
        return 4 + (p.mask_shape is not None)
    return 3 + p.bias + p.residual


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Inside, ``module`` seems not to be installed, unless it is loaded already.

    The front end imports torch where it can, for conveniences that nothing here uses; that takes seconds.
    """
    absent = module not in sys.modules
    if absent:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent and sys.modules.get(module) is None:
            sys.modules.pop(module, None)
