"""What is read and written where it lies: results that are views of their operand, operands that are parts of their result, and
lowerings that read through strides.

A view is part of its root's buffer: bytes behind the start, and strides. It begins at a multiple of 16 bytes, so what is dense
besides is as good as a buffer of its own, to every reader on the device. A lowering that takes other strides says so here; for
all others the program's maker puts a dense copy in front.
"""

from collections.abc import Callable
from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.lowering_files import bring, bring_all
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.lowering_registry import LoweringRegistry

ALIGNMENT = 16
"""Bytes of which the start of every operand is a multiple: kernels read so many at once, and libraries count on them."""


@dataclass(frozen=True, slots=True)
class View:
    """Part of an operand, in its elements: ``offset`` behind the first one, and ``strides`` along each axis of the result."""

    offset: int
    strides: tuple[int, ...]


Viewing = Callable[[Site], tuple[View, ...] | None]
"""The results as views of the first operand, one for each; None where they are none. The operand's strides are the site's."""

Reading = Callable[[Site, int], bool]
"""Whether the node's lowering reads its operand of this number through the strides that the site has for it."""

Assembling = Callable[[Site], tuple[int, ...] | None]
"""Where each operand begins in the result, in bytes, when all are dense parts of it; None where they are not."""

_VIEWS: LoweringRegistry[Viewing] = LoweringRegistry("CUDA view", bring, bring_all)
views = _VIEWS.register
find_viewing = _VIEWS.find

_READERS: LoweringRegistry[Reading] = LoweringRegistry("CUDA strided", bring, bring_all)
reads_strided = _READERS.register
find_reading = _READERS.find

_ASSEMBLED: LoweringRegistry[Assembling] = LoweringRegistry("CUDA assembling", bring, bring_all)
assembles = _ASSEMBLED.register
find_assembling = _ASSEMBLED.find
