"""SessionOptions, RunOptions and the words that they take."""

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Any, ClassVar

from miniinfer_cli.ort.faults import InvalidArgument, Unsupported
from miniinfer_cli.ort.lacking import refuse_member


class GraphOptimizationLevel(Enum):
    """How far a model is optimized: ``ORT_DISABLE_ALL`` and ``ORT_ENABLE_BASIC`` are levels 0 and 1 of a build, the others 2."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(Enum):
    """Steps run one after the other either way; one step is computed by several threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(Enum):
    """The order of steps is the planner's, whichever is asked for."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


class OrtAllocatorType(Enum):
    """Words of onnxruntime that change nothing."""

    INVALID = -1
    ORT_DEVICE_ALLOCATOR = 0
    ORT_ARENA_ALLOCATOR = 1


class OrtMemType(Enum):
    """Words of onnxruntime that change nothing."""

    CPU_INPUT = -2
    CPU_OUTPUT = -1
    DEFAULT = 0
    CPU = CPU_OUTPUT


class OrtDeviceVendorId(IntEnum):
    """Who makes devices, by the numbers of the PCI bus."""

    NONE = 0x0000
    AMD = 0x1002
    NVIDIA = 0x10DE
    ARM = 0x13B5
    MICROSOFT = 0x1414
    HUAWEI = 0x19E5
    QUALCOMM = 0x5143
    INTEL = 0x8086


class _Checked:
    """Attributes of fixed names and kinds, as those of onnxruntime's classes."""

    _KINDS: ClassVar[Mapping[str, type]] = {}

    def __getattr__(self, name: str) -> Any:
        refuse_member(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = self._KINDS.get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if kind is int and hasattr(value, "__index__"):
            value = value.__index__()
        if kind is str and hasattr(value, "__fspath__"):
            value = value.__fspath__()
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")
        object.__setattr__(self, name, value)


class SessionOptions(_Checked):
    """What a session is told. ``intra_op_num_threads`` (0: as there are processors), ``graph_optimization_level``, profiling, log
    levels, config entries and free dimensions are heeded; what bears on onnxruntime's own memory and threads changes nothing.
    """

    _KINDS: ClassVar[Mapping[str, type]] = {
        "enable_cpu_mem_arena": bool, "enable_mem_pattern": bool, "enable_mem_reuse": bool, "enable_profiling": bool,
        "execution_mode": ExecutionMode, "execution_order": ExecutionOrder, "graph_optimization_level": GraphOptimizationLevel,
        "inter_op_num_threads": int, "intra_op_num_threads": int, "log_severity_level": int, "log_verbosity_level": int,
        "logid": str, "optimized_model_filepath": str, "profile_file_prefix": str, "use_deterministic_compute": bool,
        "use_per_session_threads": bool,
    }  # fmt: skip

    enable_cpu_mem_arena: bool
    enable_mem_pattern: bool
    enable_mem_reuse: bool
    enable_profiling: bool
    execution_mode: ExecutionMode
    execution_order: ExecutionOrder
    graph_optimization_level: GraphOptimizationLevel
    inter_op_num_threads: int
    intra_op_num_threads: int
    log_severity_level: int
    log_verbosity_level: int
    logid: str
    optimized_model_filepath: str
    profile_file_prefix: str
    use_deterministic_compute: bool
    use_per_session_threads: bool

    def __init__(self) -> None:
        self.enable_cpu_mem_arena = self.enable_mem_pattern = self.enable_mem_reuse = self.use_per_session_threads = True
        self.enable_profiling = self.use_deterministic_compute = False
        self.execution_mode = ExecutionMode.ORT_SEQUENTIAL
        self.execution_order = ExecutionOrder.DEFAULT
        self.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_ALL
        self.inter_op_num_threads = self.intra_op_num_threads = self.log_verbosity_level = 0
        self.log_severity_level = -1
        self.logid = self.optimized_model_filepath = ""
        self.profile_file_prefix = "onnxruntime_profile_"
        object.__setattr__(self, "_entries", {})
        object.__setattr__(self, "_free_dimensions", {})
        object.__setattr__(self, "_providers", {})

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Notes an entry, which ``get_session_config_entry`` gives; none changes what is computed."""
        _entries_of(self)[_text("key", key)] = _text("value", value)

    def get_session_config_entry(self, key: str) -> str:
        """The entry of ``key``. Raises RuntimeError where there is none."""
        try:
            return _entries_of(self)[key]
        except KeyError:
            raise RuntimeError(f"SessionOptions has no config entry {key!r}") from None

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """The dimension that the model calls ``name`` is ``size``, in all inputs."""
        self.free_dimensions[_text("name", name)] = int(size)

    @property
    def free_dimensions(self) -> dict[str, int]:
        """Sizes by the names of dimensions, as ``add_free_dimension_override_by_name`` was told."""
        sizes: dict[str, int] = object.__getattribute__(self, "_free_dimensions")
        return sizes

    def add_provider(self, name: str, options: dict[str, str]) -> None:
        """Like an item of the session's ``providers``, where it is given none."""
        self.providers[_text("name", name)] = dict(options)

    def has_providers(self) -> bool:
        """True where ``add_provider`` was called."""
        return bool(self.providers)

    @property
    def providers(self) -> dict[str, dict[str, str]]:
        """Options by provider, as ``add_provider`` was told."""
        providers: dict[str, dict[str, str]] = object.__getattribute__(self, "_providers")
        return providers

    def register_custom_ops_library(self, path: str) -> None:
        """Raises onnxruntime's NotImplemented: a library of onnxruntime's kernels cannot be loaded."""
        raise Unsupported(
            f"{path}: libraries of onnxruntime's custom operations cannot be loaded\n"
            "  hint: define the operation in Python, in a module that MINIINFER_ORT_PLUGINS names (docs/plugins.md)"
        )

    def add_initializer(self, name: str, value: Any) -> None:
        """Raises onnxruntime's NotImplemented: initializers come from the model."""
        raise Unsupported(f"initializer {name!r}: a session takes none from outside\n  hint: store it in the model")

    def add_external_initializers(self, names: Any, values: Any) -> None:
        """Raises onnxruntime's NotImplemented, as ``add_initializer``."""
        raise Unsupported("a session takes no initializers from outside\n  hint: store them in the model")

    def add_free_dimension_override_by_denotation(self, denotation: str, size: int) -> None:
        """Raises onnxruntime's NotImplemented: dimensions are known by name."""
        raise Unsupported(f"denotation {denotation!r} is not read\n  hint: add_free_dimension_override_by_name")


class RunOptions(_Checked):
    """What a run is told. ``terminate`` ends runs that begin from then on; the others change nothing."""

    _KINDS: ClassVar[Mapping[str, type]] = {
        "log_severity_level": int, "log_verbosity_level": int, "logid": str, "only_execute_path_to_fetches": bool,
        "terminate": bool,
    }  # fmt: skip

    log_severity_level: int
    log_verbosity_level: int
    logid: str
    only_execute_path_to_fetches: bool
    terminate: bool

    def __init__(self) -> None:
        self.log_severity_level, self.log_verbosity_level, self.logid = -1, 0, ""
        self.only_execute_path_to_fetches = self.terminate = False
        object.__setattr__(self, "_entries", {})

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Notes an entry, which ``get_run_config_entry`` gives; none changes what is computed."""
        _entries_of(self)[_text("key", key)] = _text("value", value)

    def get_run_config_entry(self, key: str) -> str:
        """The entry of ``key``. Raises RuntimeError where there is none."""
        try:
            return _entries_of(self)[key]
        except KeyError:
            raise RuntimeError(f"RunOptions has no config entry {key!r}") from None

    def add_active_adapter(self, adapter: Any) -> None:
        """Raises onnxruntime's NotImplemented: there are no adapters."""
        raise Unsupported("adapters cannot be added\n  hint: merge the adapter into the model before it is exported")


def opt_level(level: GraphOptimizationLevel) -> int:
    """The level of a build."""
    return min(level.value, 2)


def expect_session_options(options: Any) -> SessionOptions:
    """``options``, or new ones for None. Raises TypeError for another kind, InvalidArgument for what cannot be done."""
    if options is None:
        return SessionOptions()
    if not isinstance(options, SessionOptions):
        raise TypeError(f"sess_options: expected SessionOptions, got {type(options).__name__}")
    if options.optimized_model_filepath:
        raise Unsupported(
            "optimized_model_filepath: an optimized model is a plan, and no ONNX file\n"
            "  hint: miniinfer_cli.build(model, path) writes it, the command inspect of miniinfer shows it"
        )
    if options.intra_op_num_threads < 0:
        raise InvalidArgument(f"intra_op_num_threads: expected 0 or more, got {options.intra_op_num_threads}")
    return options


def _entries_of(options: Any) -> dict[str, str]:
    entries: dict[str, str] = object.__getattribute__(options, "_entries")
    return entries


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected text, got {value!r}")
    return value
