"""What a session tells of its model: inputs, outputs, and what the model says of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output. ``shape`` has sizes, names, and None for a dimension that the model leaves open."""

    name: str
    type: str
    shape: list[int | str | None] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the model says of itself; texts are empty where it says nothing."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = 0
    custom_metadata_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Description:
    """What a session knows of its model, with no engine. ``constants``: inputs that no run may be given."""

    inputs: Sequence[NodeArg]
    overridable: Sequence[NodeArg]
    outputs: Sequence[NodeArg]
    metadata: ModelMetadata
