"""A plan behind LitServe: an API whose workers have an engine and a Batcher each. See docs/adapters.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import litserve
from fastapi import HTTPException, Request

from engine_format import Plan
from miniinfer_cli.errors import UsageError
from miniinfer_cli.integrations.requests import infer, open_served, status_of, to_lists


class MiniinferAPI(litserve.LitAPI):  # type: ignore[misc]
    """``litserve.LitServer(MiniinferAPI("model.plan", max_batch=32))``: JSON with the inputs by name in, the outputs by name out.

    Requests that come at once are computed together, and one that fails does so alone: LitServe's own batching
    (``max_batch_size``) stays off. ``options`` are those of ``miniinfer_cli.load``; ``more`` those of ``litserve.LitAPI``.
    Raises UsageError where that is turned on.
    """

    def __init__(
        self,
        plan: "str | Path | Plan",
        *,
        max_batch: int | None = None,
        max_delay_ms: float = 2.0,
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        if more.get("max_batch_size", 1) != 1:
            raise UsageError("max_batch_size: LitServe would put lists in the place of requests", hint="give max_batch=")
        super().__init__(**{"enable_async": True, **more})
        self._plan = plan
        self._max_batch = max_batch
        self._max_delay_ms = max_delay_ms
        self._options = dict(options or {})

    def setup(self, device: str) -> None:
        """Opens the plan on LitServe's ``device`` of a worker."""
        self.opened = open_served(
            self._plan, device if device.startswith("cuda") else "cpu", self._max_batch, self._max_delay_ms, self._options
        )

    async def decode_request(self, request: Request) -> dict[str, Any]:
        """The inputs by name of a ``request``. Raises HTTPException where it is no JSON object.

        By the annotation LitServe knows that it is to read the JSON, which is what it gives.
        """
        if not isinstance(request, dict):
            raise HTTPException(400, f"expected a JSON object with the inputs by name, got {type(request).__name__}")
        return request

    async def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name for ``inputs`` by name. Raises HTTPException with what is wrong with them, or went wrong."""
        try:
            return await infer(self.opened, inputs)
        except Exception as error:
            status, told = status_of(error)
            if not told:
                raise
            raise HTTPException(status, told) from None

    async def encode_response(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Lists for JSON by name of the ``outputs``."""
        return to_lists(outputs)
