"""What a model counts while it runs, for ``stats``."""

from dataclasses import dataclass


@dataclass(slots=True)
class CaptureCounts:
    """CUDA graphs captured over all contexts of a model, and captures that failed; changed under the captures' lock."""

    captures: int = 0
    failures: int = 0


@dataclass(slots=True)
class CopyCounts:
    """Copies that host steps made between host and device."""

    fetches: int = 0
    fetched_nbytes: int = 0
    sends: int = 0
    sent_nbytes: int = 0


@dataclass(slots=True)
class WeightCounts:
    """Look-ups of constants by level, and what was loaded ahead."""

    tensors: int = 0
    nbytes: int = 0
    preload_s: float = 0.0
    preloaded_hits: int = 0
    derived_hits: int = 0
    derived_nbytes: int = 0
    late_copies: int = 0
    late_nbytes: int = 0
    copied_from: str = ""
    """The device that the weights came from; empty where they came from the file."""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """All of it at one moment, as ``LoadedModel.stats`` tells it."""

    weights: WeightCounts
    host_copies: CopyCounts
    cuda_graphs: CaptureCounts
    device_allocations: int
    libraries_missing: dict[str, str]
