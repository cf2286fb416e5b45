"""What is asked of a generator: sizes of the dynamic dimensions, and whether the published network or a small one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """``batch`` and ``seq`` are sizes, or the names of dynamic dimensions; ``small`` keeps the structure at toy widths."""

    batch: int | str = "batch"
    seq: int | str = "seq"
    small: bool = False
