"""What the compiled kernels of a plan would take of a GPU, as their code says; told with no GPU at hand."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from engine_format import PlanError, StoredKernel, TargetSection
from miniinfer_cli.backends.cuda.contract.cubin import Resources, read_resources


@dataclass(frozen=True, slots=True)
class KernelReport:
    """A kernel of a section; ``resources`` is None where its code is damaged, or not of the kind that says so."""

    name: str
    source: str
    code_nbytes: int
    resources: Resources | None

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; what is not known is null."""
        known = dict.fromkeys(Resources.__dataclass_fields__) if self.resources is None else asdict(self.resources)
        numbers = {name.replace("_nbytes", "_bytes"): value for name, value in known.items()}
        return {"kernel": self.name, "source": self.source, **numbers, "code_bytes": self.code_nbytes}


def kernel_reports(section: TargetSection) -> Iterator[KernelReport]:
    """Of each kernel of the section, in its order. Reads their code."""
    for kernel in section.kernels:
        yield KernelReport(kernel.name, kernel.source, kernel.nbytes, _resources(kernel))


def _resources(kernel: StoredKernel) -> Resources | None:
    try:
        return read_resources(kernel.read(), kernel.name)
    except PlanError:  # --check says which
        return None
