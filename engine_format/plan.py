"""Plan: a compiled model in memory, whether just made or opened from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine_format.records import BindingRecord, BuildReport, DimensionRange, GraphRecord, Tensor
from engine_format.stored import PlanFile, StoredTensor
from engine_format.targets import TargetSection


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan:
    """A compiled model: its graph, its constants, and what else a runtime or a reader may want to know.

    ``tensors`` are handles: those of a file read and check their bytes at first touch. A constant of strings is an
    ArrayRecord. ``op_sets`` is the version of each operator set that the graph uses (``ai.onnx``, ``miniinfer`` ...).
    ``file`` is set on a plan that was opened. A changed copy is made by ``dataclasses.replace``; one that keeps
    ``tensors`` is written without reading them.
    """

    graph: GraphRecord
    tensors: tuple[Tensor, ...] = ()
    op_sets: Mapping[str, int] = field(default_factory=dict)
    ranges: tuple[DimensionRange, ...] = ()
    report: BuildReport = field(default_factory=BuildReport)
    targets: tuple[TargetSection, ...] = ()
    file: PlanFile | None = None

    @property
    def inputs(self) -> tuple[BindingRecord, ...]:
        """The named inputs, in order."""
        values = self.graph.values
        return tuple(BindingRecord(values[i].name, values[i].type) for i in self.graph.inputs)

    @property
    def outputs(self) -> tuple[BindingRecord, ...]:
        """The named outputs, in order."""
        values = self.graph.values
        return tuple(BindingRecord(n, values[i].type) for n, i in zip(self.graph.output_names, self.graph.outputs, strict=True))

    @property
    def weights_nbytes(self) -> int:
        """Bytes of all tensors together, without the gaps between them."""
        return sum(t.nbytes for t in self.tensors)

    @property
    def digest(self) -> str:
        """The digest of a file's header, which covers all other digests: equal for equal files. Empty in memory."""
        return "" if self.file is None else self.file.digest

    @property
    def path(self) -> str:
        """The file, as its path was given; empty for a plan in memory."""
        return "" if self.file is None else self.file.path

    def tensor_bytes(self, index: int) -> memoryview:
        """The densely packed bytes of the tensor ``index``: of the mapped file, or a copy for a plan in memory.

        Raises PlanError when the file is damaged there.
        """
        tensor = self.tensors[index]
        return tensor.view() if isinstance(tensor, StoredTensor) else memoryview(b"".join(tensor.chunks()))

    def weights_range(self) -> tuple[int, int]:
        """Where the weights lie in the file: first byte and length. Raises ValueError for a plan in memory."""
        if self.file is None:
            raise ValueError("a plan in memory has no file")
        return self.file.weights_range

    def check(self) -> None:
        """Compares everything in the file with its digest. Raises PlanError at the first damage."""
        if self.file is not None:
            self.file.check()
            for kernel in (k for t in self.targets for k in t.kernels):
                kernel.read()

    def with_target(self, section: TargetSection) -> "Plan":
        """This plan with ``section`` in place of the one that it replaces, or added at the end."""
        return replace(self, targets=(*(t for t in self.targets if not section.replaces(t)), section))

    def close(self) -> None:
        """Lets the file go, as far as no array still shows its bytes. May be called twice."""
        if self.file is not None:
            self.file.close()

    def __repr__(self) -> str:
        sides = f"{len(self.graph.inputs)} inputs, {len(self.graph.outputs)} outputs"
        size = f"{len(self.graph.nodes)} nodes, {self.weights_nbytes} bytes of weights"
        return f"<Plan {self.graph.name!r}, {self.path or 'in memory'}: {sides}, {size}>"

    def __enter__(self) -> "Plan":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
