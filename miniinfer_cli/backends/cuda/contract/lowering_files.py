"""The files of ``tactics/``, each imported when an operation is met whose lowering may stand there: a model needs a few of them.

A file has the name of the family in ``ops/`` that defines its operations; where it has another, that stands here.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from miniinfer_cli.ops import find

_FOLDER = Path(__file__).parents[1] / "tactics"
_PACKAGE = __package__.rpartition(".")[0] + ".tactics"
_OTHERS = {
    "activation": ("pointwise",),
    "binary": ("pointwise",),
    "cast": ("pointwise",),
    "conv_transpose": ("convolution",),
    "elementwise": ("pointwise",),
    "quantize": ("dequantize",),
    "recurrent_shapes": ("recurrent",),
    "selection": ("unique",),
}
"""For a family of ``ops``: the files besides one of its own name."""
_REGIONS = {
    "FusedConv": "fused_conv",
    "FusedMatMul": "fused_matmul",
    "FusedNormalization": "fused_normalization",
    "FusedPointwise": "pointwise",
    "NormalizedProduct": "normalized_product",
    "QuantizedAttention": "quantized_attention",
    "QuantizedConv": "quantized_regions",
    "QuantizedMatMul": "quantized_regions",
    "RowProduct": "row_products",
}
"""The file of an operation without a definition, which only stands for its body."""


@cache
def bring(domain: str, operation: str) -> None:
    """Imports the files in which lowerings of an operation may stand."""
    for name in files_of(domain, operation):
        _import(name)


def files_of(domain: str, operation: str) -> tuple[str, ...]:
    """The names of the files in which lowerings of an operation may stand; none where it has no lowering."""
    definition = find(domain, operation)
    family = _REGIONS.get(operation, "") if definition is None else definition.infer.__module__.rpartition(".")[2]
    return tuple(name for name in (family, *_OTHERS.get(family, ())) if name in _names())


@cache
def bring_all() -> None:
    """Imports every file."""
    for name in sorted(_names()):
        _import(name)


@cache
def _names() -> Mapping[str, str]:
    """The module of each file; no two folders have files of one name."""
    rooms = [m.name for m in pkgutil.iter_modules([str(_FOLDER)])]
    return {m.name: f"{_PACKAGE}.{room}.{m.name}" for room in rooms for m in pkgutil.iter_modules([str(_FOLDER / room)])}


def _import(name: str) -> None:
    importlib.import_module(_names()[name])
