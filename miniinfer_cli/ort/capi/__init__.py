"""onnxruntime's inner modules, as far as programs import them: exceptions and classes by the names that they have there."""

from miniinfer_cli.ort.capi import _pybind_state, onnxruntime_inference_collection, onnxruntime_pybind11_state

__all__ = ["_pybind_state", "onnxruntime_inference_collection", "onnxruntime_pybind11_state"]
