"""What an inference computed, as trtexec prints and writes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miniinfer_cli.cli.trtexec.log import Log, number
from miniinfer_cli.errors import UsageError


def outputs_to_json(outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every output: its name, its sizes as ``1x10``, and its values row by row. Raises UsageError for what is no tensor."""
    tensors = {name: _tensor(name, value) for name, value in outputs.items()}
    return [{"name": name, "dimensions": _by_x(array.shape), "values": _plain(array)} for name, array in tensors.items()]


def print_outputs(log: Log, outputs: Mapping[str, Any]) -> None:
    """Every output, one line for each of its rows. Raises UsageError for what is no tensor."""
    log.info("Output Tensors:")
    for name, value in outputs.items():
        array = _tensor(name, value)
        log.info(f"{name}: ({_by_x(array.shape)})")
        for row in np.asarray(array).reshape(-1, array.shape[-1] if array.ndim and array.size else 1):
            log.info(" ".join(_told(item) for item in _plain(row)))


def _tensor(name: str, value: Any) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype.kind == "c":
        raise UsageError(f"output {name!r} is not a tensor of real numbers or text", hint="take it by the Python API")
    return value


def _plain(array: Any) -> list[Any]:
    """The items as Python has them; those of types that numpy does not know as floats."""
    flat = array.reshape(-1)
    items: list[Any] = (flat if flat.dtype.kind in "biufOUS" else flat.astype(np.float32)).tolist()
    return items


def _told(item: Any) -> str:
    return number(item) if isinstance(item, float) else str(int(item) if isinstance(item, bool) else item)


def _by_x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
