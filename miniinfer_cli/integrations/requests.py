"""What adapters of servers share: a plan that answers requests, the status of a fault, and arrays as JSON has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine_format import Plan
from miniinfer_cli.devices.opening import options_of
from miniinfer_cli.errors import MiniinferError, UsageError
from miniinfer_cli.ir import Array
from miniinfer_cli.server.faults import fault_of
from miniinfer_cli.server.infer_request import InferRequest
from miniinfer_cli.server.plans import OpenPlan
from miniinfer_cli.server.settings import PlanOptions


def open_served(
    plan: "str | Path | Plan", device: str, max_batch: int | None, max_delay_ms: float, options: Mapping[str, Any]
) -> OpenPlan:
    """A plan with its engine, and a Batcher, as ``miniinfer serve`` has it; ``options`` are those of ``load``."""
    return OpenPlan(plan, PlanOptions(device, max_batch, max_delay_ms=max_delay_ms, engine=options_of(options)))


async def infer(plan: OpenPlan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs by name for ``inputs`` by name. Raises what ``Batcher.submit`` raises, and what the request fails with."""
    return await plan.submit(InferRequest("", dict(inputs), (), 0, None))


def status_of(error: BaseException) -> tuple[int, str]:
    """The status of HTTP and the line for whoever sent the request that failed with ``error``; no line for a bug."""
    if not isinstance(error, MiniinferError):
        return 500, ""
    fault = fault_of(error, in_flags=False)
    return fault.status, fault.message


def with_texts(array: Array) -> Array:
    """The array, with text in the place of bytes, which are UTF-8. Raises UsageError where they are none."""
    if not array.dtype.hasobject:
        return array
    try:
        texts = [t.decode() if isinstance(t, bytes) else t for t in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise UsageError(f"a text is no UTF-8: {error.reason}", hint="encode texts as UTF-8") from None
    return np.array(texts, object).reshape(array.shape)


def to_lists(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Nested lists by name; numbers that numpy lacks become f32."""
    return {name: _plain(np.asarray(array)).tolist() for name, array in outputs.items()}


def _plain(array: Any) -> Any:
    return array if array.dtype.kind in "biufOUS" else array.astype(np.float32)
