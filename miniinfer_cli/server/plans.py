"""A plan that is served: its engine, its Batcher, and what the protocol tells of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine_format import Plan
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.several import device_names
from miniinfer_cli.errors import MiniinferError, UsageError
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.server.infer_request import InferRequest
from miniinfer_cli.server.settings import PlanOptions
from miniinfer_cli.server.signature import Signature, signature_of
from miniinfer_cli.serving.batcher import Asked, Batcher
from miniinfer_cli.serving.layout import Layout, find_layout, layout_alone
from miniinfer_cli.serving.request import BatchedFuture


class OpenPlan:
    """A plan that is open and answers requests, until ``close``, which computes what waits.

    Raises what opening a plan and making a Batcher raise, and UsageError for types that the protocol does not have.
    """

    def __init__(self, source: "str | Path | Plan", options: PlanOptions) -> None:
        devices = device_names(options.device)
        self.engine: Engine = load(source, devices[0], options.engine)
        self.not_warm = ""
        """Why it could not be warmed up; empty where it was."""
        self.alone_since = ""
        """Why each request is computed by itself; empty where they share batches."""
        try:
            self._layout = layout = self._find_layout(options)
            self.batch_is_first = not layout.alone and not any((*layout.axes, *layout.output_axes))
            """True where the batch is the first dimension of all inputs and outputs."""
            self.signature: Signature = signature_of(layout.inputs, layout.outputs)
            self._priorities = options.priorities
            self._batcher = Batcher(
                self.engine,
                options.max_batch,
                options.max_delay_ms,
                options.max_queue,
                options.contexts,
                priorities=options.priorities,
                batch_sizes=options.batch_sizes,
                devices=devices if len(devices) > 1 else None,
                alone=layout.alone,
                copy_threads=options.copy_threads,
            )
        except BaseException:
            self.engine.close()
            raise
        try:
            if options.warm_up:
                self._warm_up()
        except BaseException:
            self.close()
            raise

    @property
    def devices(self) -> tuple[str, ...]:
        """Where it computes."""
        return tuple(self.stats()["devices"])

    @property
    def most_rows(self) -> int:
        """Rows of a batch, and of a request, at most."""
        return self._batcher.batch_sizes[-1]

    def submit(self, request: InferRequest, most_s: float | None = None) -> BatchedFuture:
        """Puts a request into the queue; ``most_s``: seconds that it has at most, whatever it says itself.

        Raises what ``Batcher.submit`` raises, and UsageError for a priority that there is not.
        """
        level = self.level(request.priority)
        return self._batcher.submit(request.inputs, priority=level, deadline_s=request.deadline_s(most_s))

    def submit_all(
        self, asked: Sequence[Asked], told: Callable[[list[BatchedFuture]], object]
    ) -> list[BatchedFuture | MiniinferError]:
        """See ``Batcher.submit_all``; priorities are as ``level`` has them."""
        return self._batcher.submit_all(asked, told)

    def level(self, priority: int) -> int:
        """The Batcher's level for a priority of the protocol's. Raises UsageError where there is none."""
        levels = self._priorities
        if priority > levels:
            raise UsageError(f"priority: expected 0 to {levels}, got {priority}", hint="1 goes first; 0 is in the middle")
        return levels - priority if priority else (levels - 1) // 2

    def stats(self) -> dict[str, Any]:
        """See ``Batcher.stats``."""
        return self._batcher.stats()

    def close(self) -> None:
        """Takes in no more, computes what waits, and lets the engine go."""
        try:
            self._batcher.close()
        finally:
            self.engine.close()

    def _find_layout(self, options: PlanOptions) -> Layout:
        """Where the batch lies; each request by itself where there is none and none is asked for."""
        try:
            return find_layout(self.engine, None, {})
        except UsageError as error:
            if options.max_batch is not None or options.batch_sizes is not None:
                raise
            self.alone_since = error.message
            return layout_alone(self.engine)

    def _warm_up(self) -> None:
        """One row of made-up values in every size of batch; a plan that refuses them serves all the same."""
        layout = self._layout
        try:
            self._batcher.warm_up(random_inputs(layout.inputs, layout.ranges, {}, {}, 0))
        except UsageError as error:
            self.not_warm = error.message
