"""The front end of cuDNN as far as it is used: notes what a graph is made of, and offers the plans that a test asks for.

A plan is ``(name, workspace bytes, numerical notes, builds)``. Serialized plans are b"plan N". Executions go to ``executed``.
"""

import enum
from types import SimpleNamespace
from typing import Any

Plan = tuple[str, int, tuple[str, ...], bool]


class NotSupported(Exception):
    pass


class FakeTensor:
    def __init__(self, operation: str, inputs: tuple["FakeTensor", ...] = (), **fields: Any) -> None:
        self.operation = operation
        self.inputs = inputs
        self.fields: dict[str, Any] = fields

    def set_dim(self, dim: list[int]) -> None:
        self.fields["dim"] = dim

    def set_stride(self, stride: list[int]) -> None:
        self.fields["stride"] = stride

    def set_data_type(self, data_type: str) -> None:
        self.fields["data_type"] = data_type

    def set_uid(self, uid: int) -> None:
        self.fields["uid"] = uid

    def set_output(self, output: bool) -> None:
        self.fields["output"] = output

    def expression(self) -> str:
        """The graph behind this tensor, as text."""
        inner = ", ".join(i.expression() for i in self.inputs)
        return f"{self.operation}({inner})" if self.inputs else self.operation


class Modes(enum.Enum):
    A = 1
    B = 2
    FALLBACK = 3


class FakeCudnn:
    """Stands for the module ``cudnn``."""

    __version__ = "1.20.0"
    cudnnGraphNotSupportedError = NotSupported  # noqa: N815
    data_type = SimpleNamespace(FLOAT="float", HALF="half", BFLOAT16="bfloat16")
    heur_mode = Modes
    numerical_note = SimpleNamespace(
        **{n: n for n in ("TENSOR_CORE", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "NONDETERMINISTIC")}
    )
    diagonal_alignment = SimpleNamespace(TOP_LEFT="top left")

    def __init__(self) -> None:
        self.plans: list[Plan] = [("eng0", 0, (), True)]
        self.refuse: set[str] = set()  # expressions of graphs that are not supported
        self.refuse_plans = False
        self.failure: type[Exception] = RuntimeError
        self.graphs: list[FakeGraph] = []
        self.executed: list[tuple[Any, ...]] = []
        self.handles: dict[int, int | None] = {}
        self.built = 0
        self.pygraph = lambda **options: FakeGraph(self, **options)

    def backend_version_string(self) -> str:
        return "9.19.0"

    def create_handle(self) -> int:
        handle = 100 + len(self.handles)
        self.handles[handle] = None
        return handle

    def set_stream(self, handle: int, stream: int) -> None:
        self.handles[handle] = stream

    def destroy_handle(self, handle: int) -> None:
        del self.handles[handle]


class FakeGraph:
    def __init__(self, cudnn: FakeCudnn, *, handle: int, intermediate_data_type: str, compute_data_type: str, name: str) -> None:
        assert intermediate_data_type == compute_data_type == "float" and handle in cudnn.handles
        self.cudnn = cudnn
        self.tensors: list[FakeTensor] = []
        self.options: dict[str, Any] = {}
        self.barred: set[str] = set()
        self.limit = 0
        self.chosen: int | None = None
        self.restored: bytes | None = None
        cudnn.graphs.append(self)

    def _add(self, operation: str, *inputs: FakeTensor, **fields: Any) -> FakeTensor:
        tensor = FakeTensor(operation, inputs, **fields)
        self.tensors.append(tensor)
        return tensor

    def tensor(self, *, dim: list[int], stride: list[int], data_type: str, name: str, uid: int) -> FakeTensor:
        return self._add(name, dim=dim, stride=stride, data_type=data_type, uid=uid)

    def conv_fprop(self, image: FakeTensor, weight: FakeTensor, **windows: list[int]) -> FakeTensor:
        self.options = windows
        return self._add("conv", image, weight)

    def conv_dgrad(self, loss: FakeTensor, filter: FakeTensor, **windows: list[int]) -> FakeTensor:
        self.options = windows
        return self._add("dgrad", loss, filter)

    def add(self, a: FakeTensor, b: FakeTensor) -> FakeTensor:
        return self._add("add", a, b)

    def relu(self, input: FakeTensor) -> FakeTensor:
        return self._add("relu", input)

    def sdpa(self, q: FakeTensor, k: FakeTensor, v: FakeTensor, bias: FakeTensor | None = None, **options: Any) -> Any:
        self.options = options
        return self._add("sdpa", q, k, v, *([] if bias is None else [bias])), None

    @property
    def output(self) -> FakeTensor:
        (output,) = (t for t in self.tensors if t.fields.get("output"))
        return output

    def operand(self, uid: int) -> FakeTensor:
        (found,) = (t for t in self.tensors if t.fields.get("uid") == uid)
        return found

    def validate(self) -> None:
        assert self.chosen is None

    def build_operation_graph(self) -> None:
        if self.output.expression() in self.cudnn.refuse:
            raise NotSupported("no engine for this graph\nand more")

    def create_execution_plans(self, modes: list[Modes]) -> None:
        assert modes == [Modes.A, Modes.FALLBACK]

    def deselect_numeric_notes(self, notes: list[str]) -> None:
        self.barred |= set(notes)

    def deselect_workspace_greater_than(self, nbytes: int) -> None:
        self.limit = nbytes

    def get_execution_plan_count(self) -> int:
        return len(self.cudnn.plans)

    def build_plan_at_index(self, index: int) -> None:
        name, workspace, notes, builds = self.cudnn.plans[index]
        if not builds or workspace > self.limit or self.barred & set(notes):
            raise self.cudnn.failure(f"{name} does not build")
        self.cudnn.built += 1
        self.chosen = index

    def get_plan_name_at_index(self, index: int) -> str:
        assert self.restored is None, "the real one reads outside its list"
        return self.cudnn.plans[index][0]

    def get_workspace_size(self) -> int:
        assert self.chosen is not None
        return self.cudnn.plans[self.chosen][1]

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return self.cudnn.plans[index][1]

    def serialize(self) -> list[int]:
        return list(f"plan {self.chosen}".encode())

    def deserialize(self, handle: int, plan: list[int]) -> None:
        assert isinstance(plan, list) and handle in self.cudnn.handles, "the real one takes a list only"
        if self.cudnn.refuse_plans:
            raise RuntimeError("another release's plan")
        self.restored = bytes(plan)
        self.chosen = int(self.restored.split()[1])

    def execute(self, pack: dict[int, int], workspace: int, handle: int) -> None:
        self.cudnn.executed.append((self.chosen, pack, workspace, handle))

    def execute_plan_at_index(self, pack: dict[int, int], workspace: int, index: int, handle: int) -> None:
        self.cudnn.executed.append((index, pack, workspace, handle))
