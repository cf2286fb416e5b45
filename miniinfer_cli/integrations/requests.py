"""What adapters of servers share: the status of a fault, and arrays as JSON has them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.server.faults import fault_of


def status_of(error: BaseException) -> tuple[int, str]:
    """The status of HTTP and the line for whoever sent the request that failed with ``error``; no line for a bug."""
    if not isinstance(error, MiniinferError):
        return 500, ""
    fault = fault_of(error)
    return fault.status, fault.message


def to_lists(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Nested lists by name; numbers that numpy lacks become f32."""
    return {name: _plain(np.asarray(array)).tolist() for name, array in outputs.items()}


def _plain(array: Any) -> Any:
    return array if array.dtype.kind in "biufOUS" else array.astype(np.float32)
