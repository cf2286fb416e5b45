"""The same names as ``onnxruntime_pybind11_state`` has, under the name by which Python's part of onnxruntime imports them."""

from miniinfer_cli.ort.capi.onnxruntime_pybind11_state import *  # noqa: F403  # what __all__ of that lists
from miniinfer_cli.ort.lacking import LACKING_IN_CAPI, refusing

__getattr__ = refusing("onnxruntime.capi._pybind_state", LACKING_IN_CAPI)
