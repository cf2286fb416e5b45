"""onnxruntime's providers, and the devices that they are here."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.devices.models import gpu_fault
from miniinfer_cli.ort.faults import EPFail

LOG = logging.getLogger("miniinfer_cli.ort")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# onnxruntime's own order. A session takes the first two words that are devices here; the others are told to be missing.
_ALL = (
    *("TensorrtExecutionProvider", CUDA, "MIGraphXExecutionProvider", "OpenVINOExecutionProvider", "DnnlExecutionProvider"),
    *("VitisAIExecutionProvider", "QNNExecutionProvider", "NnapiExecutionProvider", "JsExecutionProvider"),
    *("CoreMLExecutionProvider", "DmlExecutionProvider", "WebNNExecutionProvider", "WebGpuExecutionProvider"),
    *("XnnpackExecutionProvider", "CANNExecutionProvider", "AzureExecutionProvider", CPU),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The device of a session, and the providers that it says it has, with their options as text."""

    device: str
    options: Mapping[str, dict[str, str]]


def get_all_providers() -> list[str]:
    """The names that onnxruntime has."""
    return list(_ALL)


def get_available_providers() -> list[str]:
    """The names of those that can be used here: the GPU's where there is one, and the CPU's."""
    return [CPU] if gpu_fault() is not None else [CUDA, CPU]


def get_device() -> str:
    """``GPU`` where one can be used, else ``CPU``."""
    return "CPU" if gpu_fault() is not None else "GPU"


def choose(
    providers: Sequence[Any] | None, options: Sequence[Mapping[str, Any]] | None, *, own: Mapping[str, Mapping[str, str]]
) -> Chosen:
    """The device for ``providers``, names or pairs of name and options, or names with their ``options`` beside.

    Without any it is what ``own``, the session options' providers, say, or the CPU. A provider that is not there is warned of,
    with the reason, and the next one taken; the CPU is behind all of them, and where that is taken for want of others, it is
    said. Raises ValueError for lists that do not fit each other, EPFail for a number of a GPU that is not there.
    """
    wanted = _normalized(providers, options) or {name: dict(o) for name, o in own.items()}
    given: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    fault = gpu_fault() if CUDA in wanted else None
    for name, its in wanted.items():
        if name == CPU or (name == CUDA and fault is None):
            given[name] = its
        else:
            missing.append(f"{name} ({fault if name == CUDA else 'not one of ' + ', '.join(get_available_providers())})")
    if missing:
        taken = CUDA if CUDA in given else CPU
        warnings.warn(f"asked for and not there: {'; '.join(missing)}; the session takes {taken}", UserWarning, stacklevel=4)
    given.setdefault(CPU, {})
    first = next(iter(given))
    if first == CPU:
        return Chosen("cpu", {CPU: given[CPU]})
    return Chosen(f"cuda:{_ordinal(given[CUDA])}", given)


def _ordinal(options: Mapping[str, str]) -> int:
    text = options.get("device_id", "0")
    if not text.isdecimal():
        raise EPFail(f"device_id: expected the number of a GPU, got {text!r}")
    return int(text)


def _normalized(providers: Sequence[Any] | None, options: Sequence[Mapping[str, Any]] | None) -> dict[str, dict[str, str]]:
    """Options by name, as text. Raises ValueError and TypeError."""
    if providers is None:
        if options:
            raise ValueError("provider_options: there are no providers that they belong to")
        return {}
    if isinstance(providers, str):
        raise TypeError(f"providers: expected a list of names, got {providers!r}; give [{providers!r}]")
    if options is not None and len(options) != len(providers):
        raise ValueError(f"provider_options: {len(options)} of them for {len(providers)} providers")
    found: dict[str, dict[str, str]] = {}
    for number, item in enumerate(providers):
        its: Any = options[number] if options is not None else {}
        name = item
        if isinstance(item, (tuple, list)):
            if len(item) != 2 or not isinstance(item[0], str) or not isinstance(item[1], Mapping):
                raise ValueError(f"providers: expected names, or pairs of a name and its options, got {item!r}")
            if options is not None and any(options):
                raise ValueError("provider_options: the options stand in providers already")
            name, its = item
        if not isinstance(name, str) or not isinstance(its, Mapping):
            raise ValueError(f"providers: expected names, or pairs of a name and its options, got {item!r}")
        if name in found:
            warnings.warn(f"provider {name} is there twice; the second is left out", UserWarning, stacklevel=5)
            continue
        found[name] = {str(k): str(v) for k, v in its.items()}
    return found
