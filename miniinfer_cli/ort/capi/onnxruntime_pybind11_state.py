"""What onnxruntime has in C++: the exceptions, options, values and functions."""

from miniinfer_cli.ort.binding import IOBinding as SessionIOBinding
from miniinfer_cli.ort.faults import (
    EngineError,
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    ModelLoaded,
    NoModel,
    NoSuchFile,
    RuntimeException,
    Unsupported,
)
from miniinfer_cli.ort.lacking import LACKING_IN_CAPI, refusing
from miniinfer_cli.ort.nodes import ModelMetadata, NodeArg
from miniinfer_cli.ort.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    OrtAllocatorType,
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
    set_default_logger_severity,
    set_default_logger_verbosity,
    set_seed,
)
from miniinfer_cli.ort.values import OrtDevice, OrtValue

NotImplemented = Unsupported  # onnxruntime's name
__all__ = [
    "EPFail",
    "EngineError",
    "ExecutionMode",
    "ExecutionOrder",
    "Fail",
    "GraphOptimizationLevel",
    "InferenceSession",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoaded",
    "ModelMetadata",
    "NoModel",
    "NoSuchFile",
    "NodeArg",
    "NotImplemented",
    "OrtAllocatorType",
    "OrtDevice",
    "OrtMemType",
    "OrtValue",
    "RunOptions",
    "RuntimeException",
    "SessionIOBinding",
    "SessionOptions",
    "disable_telemetry_events",
    "enable_telemetry_events",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "has_collective_ops",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]

__getattr__ = refusing("onnxruntime.capi.onnxruntime_pybind11_state", LACKING_IN_CAPI)
