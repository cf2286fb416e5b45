"""What a plan takes and gives, as the protocol tells of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from miniinfer_cli.ir import TensorType
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.server.datatypes import datatype


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: its binding, the protocol's name of its type, and numpy's. ``shape`` has -1 for what may vary."""

    binding: Binding
    datatype: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]

    @property
    def kind(self) -> TensorType:
        """The type."""
        assert isinstance(self.binding.type, TensorType)
        return self.binding.type

    @property
    def triton_type(self) -> str:
        """The type as the configuration of a model in Triton names it."""
        return f"TYPE_{'STRING' if self.datatype == 'BYTES' else self.datatype}"

    def to_json(self) -> dict[str, Any]:
        """As the metadata of a model have it."""
        return {"name": self.binding.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs that a request gives, and the outputs that there are, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    read: dict[bytes, Any] = field(default_factory=dict, compare=False, repr=False)
    """What requests of this very JSON say; see ``infer_request``."""

    def to_json(self) -> dict[str, Any]:
        """Both, as the metadata of a model have them."""
        return {"inputs": [t.to_json() for t in self.inputs.values()], "outputs": [t.to_json() for t in self.outputs.values()]}


def signature_of(inputs: Sequence[Binding], outputs: Sequence[Binding]) -> Signature:
    """The signature of these. Raises UsageError for a type that the protocol does not have."""
    return Signature(
        {b.name: _tensor("input", b) for b in inputs},
        {b.name: _tensor("output", b) for b in outputs},
    )


def _tensor(what: str, binding: Binding) -> Tensor:
    name = datatype(what, binding)
    dtype = binding.dtype
    assert dtype is not None
    return Tensor(binding, name, dtype, tuple(d if isinstance(d, int) else -1 for d in binding.shape or ()))
