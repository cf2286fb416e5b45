"""onnxruntime's names over plans and engines: ``from miniinfer_cli import ort as onnxruntime``, and programs run as they are.

    session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": array})

``miniinfer ort-shim -- python app.py`` makes it ``onnxruntime`` for one process. docs/onnxruntime.md lists the names.
"""

from miniinfer_cli.ort import capi
from miniinfer_cli.ort.binding import IOBinding
from miniinfer_cli.ort.lacking import LACKING, refusing
from miniinfer_cli.ort.nodes import ModelMetadata, NodeArg
from miniinfer_cli.ort.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    OrtAllocatorType,
    OrtDeviceVendorId,
    OrtMemType,
    RunOptions,
    SessionOptions,
)
from miniinfer_cli.ort.providers import get_all_providers, get_available_providers, get_device
from miniinfer_cli.ort.session import InferenceSession
from miniinfer_cli.ort.settings import (
    disable_telemetry_events,
    enable_telemetry_events,
    get_build_info,
    get_version_string,
    has_collective_ops,
    preload_dlls,
    print_debug_info,
    set_default_logger_callback,
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_global_thread_pool_sizes,
    set_seed,
)
from miniinfer_cli.ort.values import OrtDevice, OrtValue
from miniinfer_cli.version import ONNXRUNTIME

SessionIOBinding = IOBinding
__version__ = ONNXRUNTIME
version = ONNXRUNTIME
package_name = "onnxruntime"
cuda_version = ""
__author__ = "miniinfer"
__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtAllocatorType",
    "OrtDevice",
    "OrtDeviceVendorId",
    "OrtMemType",
    "OrtValue",
    "RunOptions",
    "SessionIOBinding",
    "SessionOptions",
    "capi",
    "cuda_version",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "has_collective_ops",
    "package_name",
    "preload_dlls",
    "print_debug_info",
    "set_default_logger_callback",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_global_thread_pool_sizes",
    "set_seed",
    "version",
]

__getattr__ = refusing("onnxruntime", LACKING)
