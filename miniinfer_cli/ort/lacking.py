"""What of onnxruntime's names is not there, and what to do instead; how a module says so."""

import opcode
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NoReturn

_FROM = opcode.opmap["IMPORT_FROM"]

_LORA = "merge the adapter into the model before it is exported"
_PACKAGE = "open the .onnx file itself: InferenceSession(path)"
_COMPILE = "miniinfer_cli.build(model, path) makes a plan; sessions keep theirs in the cache"
_EP_LIBRARY = "there are two providers, CPUExecutionProvider and CUDAExecutionProvider; libraries of others cannot be loaded"
_SPARSE = "give a dense array: sparse initializers of a model are read, sparse inputs are not"
_ALLOCATOR = "memory needs no setting: leave the call out"
_SCHEMAS = "docs/ops.md lists the operations"
_QUANTIZE = "quantize with onnxruntime itself, outside of the shim; the model that it writes runs here"

LACKING: Mapping[str, str] = {
    **dict.fromkeys(("LoraAdapter", "AdapterFormat"), _LORA),
    **dict.fromkeys(
        ("ModelPackage", "ModelPackageComponentContext", "ModelPackageContext", "ModelPackageOptions", "ModelPackageWriteMode"),
        _PACKAGE,
    ),
    **dict.fromkeys(
        ("ModelCompiler", "OrtCompileApiFlags", "OrtEpContextData", "OrtEpContextDataBuffer", "OrtExternalInitializerInfo"),
        _COMPILE,
    ),
    **dict.fromkeys(
        (
            *("OrtEpAssignedNode", "OrtEpAssignedSubgraph", "OrtEpDevice", "OrtExecutionProviderDevicePolicy"),
            *("OrtHardwareDevice", "OrtHardwareDeviceType", "OrtSyncStream", "get_ep_devices"),
            *("register_execution_provider_library", "unregister_execution_provider_library"),
        ),
        _EP_LIBRARY,
    ),
    **dict.fromkeys(("SparseTensor", "OrtSparseFormat"), _SPARSE),
    **dict.fromkeys(
        (
            *("OrtArenaCfg", "OrtMemoryInfo", "OrtMemoryInfoDeviceType", "OrtDeviceMemoryType"),
            *("create_and_register_allocator", "create_and_register_allocator_v2"),
        ),
        _ALLOCATOR,
    ),
    "copy_tensors": "OrtValue.update_inplace copies an array, OrtValue.numpy() gives one",
}
"""Names of the package ``onnxruntime`` that are refused, and the way out."""

LACKING_IN_CAPI: Mapping[str, str] = {
    **LACKING,
    **dict.fromkeys(("get_all_operator_schema", "get_all_opkernel_def", "get_registered_ep_kernel_defs", "schemadef"), _SCHEMAS),
    **dict.fromkeys(("quantize_matmul_4bits", "quantize_matmul_8bits", "quantize_qdq_matmul_4bits"), _QUANTIZE),
    "OrtValueVector": "lists of OrtValue will do",
}

_EXTERNAL = "store them in the model, or in files beside it"
_WHERE = "get_providers() tells where the session runs"

LACKING_MEMBERS: Mapping[str, Mapping[str, str]] = {
    "InferenceSession": {
        **dict.fromkeys(("get_input_epdevices", "get_input_memory_infos", "get_output_memory_infos"), _WHERE),
        "create_ortvalue_from_shape_and_type": "OrtValue.ortvalue_from_shape_and_type makes one for any session",
        "get_provider_graph_assignment_info": "the command inspect of miniinfer shows where each node runs",
        "release_captured_graph": "captured graphs go with the session",
        "run_with_ortvaluevector": "take run_with_ort_values or run_with_iobinding",
        "set_ep_dynamic_options": "give provider_options to the session",
    },
    "IOBinding": {"get_outputs_as_ortvaluevector": "get_outputs() gives a list"},
    "OrtValue": dict.fromkeys(("as_sparse_tensor", "ort_value_from_sparse_tensor"), _SPARSE),
    "SessionOptions": {
        "add_external_initializers_from_files_in_memory": _EXTERNAL,
        **dict.fromkeys(("set_ep_context_data_read_func", "clear_ep_context_data_read_func"), _COMPILE),
        **dict.fromkeys(
            ("add_provider_for_devices", "set_provider_selection_policy", "set_provider_selection_policy_delegate"),
            "give providers to the session, or call add_provider",
        ),
        "set_load_cancellation_flag": "open the session in a process of its own, which may be ended",
    },
}
"""Names of classes that are refused, by class, and the way out."""

LACKING_MODULES: Mapping[str, str] = {
    "quantization": _QUANTIZE,
    "transformers": "its fusions are passes of the build here; run the optimizer outside of the shim, if you want its file",
    "tools": "run onnxruntime's tools outside of the shim",
    "training": "train with the framework that the model comes from",
    "datasets": "onnxruntime's example models come with onnxruntime alone",
    "backend": "take InferenceSession",
}
"""Modules of the package that are refused, and the way out."""


def refusing(module: str, hints: Mapping[str, str]) -> Callable[[str], NoReturn]:
    """The ``__getattr__`` of ``module``: AttributeError with the hint, and ImportError to ``from ... import``."""

    def refuse(name: str) -> NoReturn:
        message = told(name, hints.get(name, ""), f"module {module!r} has no attribute {name!r}")
        if name in hints and _is_import(sys._getframe(1)):
            raise ImportError(message, name=name)
        raise AttributeError(message)

    return refuse


def refuse_member(value: object, name: str) -> NoReturn:
    """What the ``__getattr__`` of a class does: AttributeError, with the hint for a name of onnxruntime's."""
    kind = type(value).__name__
    hint = LACKING_MEMBERS.get(kind, {}).get(name, "")
    raise AttributeError(told(f"{kind}.{name}", hint, f"{kind!r} object has no attribute {name!r}"))


def told(name: str, hint: str, otherwise: str) -> str:
    """What is said of a name that is not there; ``otherwise`` where it is none of onnxruntime's."""
    return f"miniinfer's onnxruntime has no {name}\n  hint: {hint}" if hint else otherwise


def _is_import(frame: FrameType) -> bool:
    """True where the caller is a ``from ... import``, which would say nothing of an AttributeError."""
    if frame.f_code.co_name == "_handle_fromlist":
        return True
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == _FROM
