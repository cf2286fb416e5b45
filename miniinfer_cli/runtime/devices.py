"""From a device's name to a model loaded on it."""

from miniinfer_cli.backends.cpu.device import CpuModel
from miniinfer_cli.backends.interface import LoadedModel
from miniinfer_cli.errors import DeviceError, UsageError
from miniinfer_cli.ir import Graph


def load_model(graph: Graph, device: str) -> LoadedModel:
    """Loads ``graph`` on ``auto``, ``cpu`` or ``cuda:N``. Raises DeviceError when it is not there, UsageError for other words."""
    if device in ("auto", "cpu"):
        return CpuModel(graph)
    if device == "cuda" or device.startswith("cuda:"):
        raise DeviceError(f"device {device!r}: this release runs plans on the CPU only", hint="use --device cpu, or auto")
    raise UsageError(f"device {device!r} is not one of auto, cpu, cuda:N")
