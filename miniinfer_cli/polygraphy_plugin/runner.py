"""A Polygraphy runner: builds a model, or opens a plan, and runs it."""

import time
from collections.abc import Mapping
from typing import Any

from polygraphy import util
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.datatype import DataType

from miniinfer_cli.builder.building import build_with
from miniinfer_cli.devices.opening import load_with
from miniinfer_cli.runtime.engine import Engine


class MiniinferRunner(BaseRunner):
    """Runs a model with miniinfer.

    ``model``: a path of a model or of a plan (``.plan``), the bytes of a model, or a function that gives one of these. ``device``
    is that of ``load()``; ``options`` are those of ``build()``.
    """

    def __init__(
        self, model: Any, name: str | None = None, device: str = "auto", options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(name=name, prefix="miniinfer-runner")
        self._model = model
        self._device = device
        self._options = dict(options or {})
        self._engine: Engine | None = None

    def activate_impl(self) -> None:
        """Builds and opens. Raises MiniinferError."""
        model, _ = util.invoke_if_callable(self._model)
        is_plan = isinstance(model, str) and model.endswith(".plan")
        self._engine = load_with(model if is_plan else build_with(model, None, self._options), self._device, {})

    def get_input_metadata_impl(self) -> Any:
        """The inputs, with -1 for sizes that are open."""
        metadata = TensorMetadata()
        assert self._engine is not None
        for binding in self._engine.inputs:
            shape = binding.shape
            sizes = None if shape is None else [d if isinstance(d, int) else -1 for d in shape]
            metadata.add(binding.name, dtype=DataType.from_dtype(binding.dtype), shape=sizes)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name; tensors of torch for tensors of torch."""
        assert self._engine is not None
        use_torch = any(util.array.is_torch(value) for value in feed_dict.values())
        feeds = {name: util.array.to_numpy(value) for name, value in feed_dict.items()}
        started = time.perf_counter()
        outputs = self._engine.run(feeds)
        self.inference_time = time.perf_counter() - started
        return {name: util.array.to_torch(value) if use_torch else value for name, value in outputs.items()}

    def deactivate_impl(self) -> None:
        """Closes the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
