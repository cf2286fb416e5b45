"""Handlers for older versions of operators, one file per kind of change. Importing this registers all."""

from miniinfer_cli.onnx_import.upgrades import (
    axes_as_inputs,
    broadcasting,
    control_flow,
    experimental,
    normalized,
    renamed,
    resampling,
)

__all__ = [
    "axes_as_inputs",
    "broadcasting",
    "control_flow",
    "experimental",
    "normalized",
    "renamed",
    "resampling",
]
