"""The model of Triton's Python backend: what ``model.py`` of a folder that ``miniinfer template triton`` wrote is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from miniinfer_cli.devices.opening import load_with
from miniinfer_cli.errors import UsageError
from miniinfer_cli.integrations.requests import status_of, with_texts
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.serving.batcher import Batcher


class TritonPythonModel:
    """One instance: an engine, and a Batcher where Triton batches. Each request of a batch has its own answer, or its own
    error."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Opens the plan beside ``model.py`` on the instance's device; ``args`` are Triton's."""
        config = json.loads(args["model_config"])
        name = config["parameters"]["plan"]["string_value"]
        path = Path(args["model_repository"]) / args["model_version"] / name
        on_gpu = args["model_instance_kind"] == "GPU"
        self.engine: Engine = load_with(path, f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu", {})
        most = int(config.get("max_batch_size", 0))
        # What waits has waited in Triton's queue already.
        self.batcher = Batcher(self.engine, most, 0, overload="block") if most else None
        self._inputs = [b.name for b in self.engine.inputs if b.default is None]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """The answers to ``requests``, in their order."""
        given = [self._begun(request) for request in requests]
        return [self._answer(outputs) for outputs in given]

    def finalize(self) -> None:
        """Lets the engine go."""
        if self.batcher is not None:
            self.batcher.close()
        self.engine.close()

    def _begun(self, request: Any) -> Any:
        """What gives the outputs of a request, or raises its error, when it is called; a UsageError where it does not fit."""
        try:
            inputs = {name: _read(pb_utils.get_input_tensor_by_name(request, name), name) for name in self._inputs}
            if self.batcher is None:
                return lambda: self.engine.run(inputs)
            return self.batcher.submit(inputs).result
        except UsageError as error:
            return error

    def _answer(self, outputs: Any) -> Any:
        try:
            if isinstance(outputs, UsageError):
                raise outputs
            found = outputs()
        except Exception as error:
            _, told = status_of(error)
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(told or f"{type(error).__name__}: {error}"))
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(n, _written(a)) for n, a in found.items()])


def _read(tensor: Any, name: str) -> Any:
    if tensor is None:
        raise UsageError(f"there is no input {name!r}")
    return with_texts(tensor.as_numpy())


def _written(array: Any) -> Any:
    return np.array([t.encode() for t in array.reshape(-1)], object).reshape(array.shape) if array.dtype.hasobject else array
