"""A plan as a KServe ``Model``. See docs/adapters.md."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kserve
from kserve.errors import InferenceError, InvalidInput

from engine_format import Plan
from miniinfer_cli.integrations.requests import infer, open_served, status_of, with_texts
from miniinfer_cli.server.plans import OpenPlan


class PlanModel(kserve.Model):  # type: ignore[misc]
    """``kserve.ModelServer().start([PlanModel("net", "model.plan")])``: the Open Inference Protocol.

    Requests that come at once are computed together, and one that fails does so alone. ``device`` and ``options`` are those of
    ``miniinfer_cli.load``.
    """

    def __init__(
        self,
        name: str,
        plan: "str | Path | Plan",
        *,
        device: str = "auto",
        max_batch: int | None = None,
        max_delay_ms: float = 2.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(name)
        self._plan = plan
        self._device = device
        self._batching = (max_batch, max_delay_ms)
        self._options = dict(options or {})
        self._opened: OpenPlan | None = None
        self.load()

    def load(self) -> bool:
        """Opens the plan, where that is not done yet. Raises what ``load`` raises."""
        if self._opened is None:
            self._opened = open_served(self._plan, self._device, *self._batching, self._options)
        self.ready = True
        return True

    def __getstate__(self) -> dict[str, Any]:
        """For another process of the server, which opens the plan for itself."""
        return {**self.__dict__, "_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.load()

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs, as the metadata of the model have them."""
        return [] if self._opened is None else [t.to_json() for t in self._opened.signature.inputs.values()]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs, likewise."""
        return [] if self._opened is None else [t.to_json() for t in self._opened.signature.outputs.values()]

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """The answer to a request of version 2 of the protocol. Raises InvalidInput and InferenceError.

        ``payload``: an InferRequest. The headers are not looked at.
        """
        if not isinstance(payload, kserve.InferRequest):
            raise InvalidInput("requests of version 1 of the protocol are not taken: send inputs to /v2/models/NAME/infer")
        assert self._opened is not None
        try:
            outputs = await infer(self._opened, {one.name: with_texts(one.as_numpy()) for one in payload.inputs})
        except Exception as error:
            status, told = status_of(error)
            if not told:
                raise
            raise (InvalidInput(told) if status == 400 else InferenceError(told)) from None
        made = []
        for name, tensor in self._opened.signature.outputs.items():
            array = outputs[name]
            output = kserve.InferOutput(name, list(array.shape), tensor.datatype)
            output.set_data_from_numpy(array, binary_data=False)
            made.append(output)
        return kserve.InferResponse(payload.id or "", self.name, made)
