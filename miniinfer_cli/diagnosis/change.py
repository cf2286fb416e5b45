"""What a trial does otherwise than the run that is diagnosed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Change:
    """What a trial does otherwise than the run: settings, options of the device, or the graph.

    ``streams``, ``batch``: None for those of the run, of which the batch ``was`` so large. ``options``: fields of DeviceOptions.
    ``full``: built with all passes. ``tf32``: None as the plan was built. ``without``: outputs that are left out. ``fixed``:
    sizes fixed to those of the run. ``uint8``: inputs that come as uint8, and are converted on the device. ``half``: f32 becomes
    f16, as ``build --fp16`` does it. ``pinned``: the caller writes its inputs where the device reads them; compared with arrays
    of its own.
    """

    streams: int | None = None
    batch: int | None = None
    was: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    full: bool = False
    tf32: bool | None = None
    without: tuple[str, ...] = ()
    fixed: bool = False
    uint8: tuple[str, ...] = ()
    half: bool = False
    pinned: bool = False

    @property
    def rebuilds(self) -> bool:
        """It needs another graph."""
        return self.full or self.tf32 is not None or bool(self.without) or self.fixed or bool(self.uint8) or self.half
