"""Sessions, bindings and values by the module in which onnxruntime defines them."""

from miniinfer_cli.ort.binding import IOBinding
from miniinfer_cli.ort.lacking import LACKING, refusing
from miniinfer_cli.ort.options import OrtDeviceVendorId
from miniinfer_cli.ort.session import InferenceSession, Session
from miniinfer_cli.ort.values import OrtDevice, OrtValue

__all__ = ["IOBinding", "InferenceSession", "OrtDevice", "OrtDeviceVendorId", "OrtValue", "Session"]

__getattr__ = refusing("onnxruntime.capi.onnxruntime_inference_collection", LACKING)
