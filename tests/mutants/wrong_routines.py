"""What a CPU lowering gives, made wrong: a routine that changes its results when it has computed them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cpu.routine import Routine, Site, each_time
from miniinfer_cli.ir import Array

WAYS = ("scaled", "changed", "others")
"""The first output scaled by 1.01; one element of it changed; every other output scaled."""
MAY_NOT_APPLY = frozenset({"others"})


def change(way: str, site: Site, routine: Routine, applied: Callable[[], None]) -> Routine:
    """The routine with its results made wrong; an epilogue reads these."""

    def run(inputs: Any, outputs: Any, scratch: Array) -> None:
        routine.run(inputs, outputs, scratch)
        for out in outputs[1:] if way == "others" else outputs[:1]:
            if out.size:
                _spoil(way, out)
                applied()

    return replace(routine, prepare=each_time(run), prepare_then=None)


def _spoil(way: str, out: Array) -> None:
    last = (-1,) * out.ndim if way == "changed" else ...
    if out.dtype == np.bool_:
        out[last] = ~out[last]
    elif out.dtype.kind in "iu":
        out[last] = out[last] ^ out.dtype.type(1)
    elif way == "changed":
        out[last] = 1 if out[last] == 0 else 0
    else:
        out[...] = (out.astype(np.complex128 if out.dtype.kind == "c" else np.float64) * 1.01).astype(out.dtype)
