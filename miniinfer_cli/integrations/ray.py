"""Plans in Ray: a predictor for batches of Ray Data, and a deployment of Ray Serve. See docs/ray.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine_format import Plan
from miniinfer_cli.devices.opening import load_with
from miniinfer_cli.integrations.columns import ColumnPredictor
from miniinfer_cli.integrations.ray_resources import assigned

# Requests that a replica has at a time, waiting ones included: Ray's own number, 5, would leave batches empty.
_LEAST_ONGOING = 64
_BATCHES_AHEAD = 4


class MiniinferPredictor:
    """Batches of columns through a plan, for ``Dataset.map_batches``: one engine in each actor.

        dataset.map_batches(
            MiniinferPredictor,
            fn_constructor_kwargs={"plan": "model.plan", "columns": {"x": "image"}},
            batch_size=256, concurrency=4, num_cpus=2,
        )

    ``plan``: a path that is there on all nodes, or a plan that is open, which travels as path and digest: an actor refuses
    another file. ``columns``, ``outputs``, ``keep``, ``batch_dim`` and ``max_batch`` as ``ColumnPredictor`` has them;
    ``options`` are those of ``miniinfer_cli.load``. The device is the GPU that Ray gave the actor, else the CPU, with as many
    threads as the actor's ``num_cpus``. Raises what ``load`` and ``ColumnPredictor`` raise.
    """

    def __init__(
        self,
        plan: "str | Path | Plan",
        *,
        columns: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        keep: Sequence[str] | None = None,
        batch_dim: str | None = None,
        max_batch: int | None = None,
        device: str = "auto",
        **options: Any,
    ) -> None:
        device, options = assigned(device, options)
        self.engine = load_with(plan, device, options)
        self._predictor = ColumnPredictor(
            self.engine, columns=columns, outputs=outputs, keep=keep, batch_dim=batch_dim, max_batch=max_batch
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of results for a ``batch`` of columns; see ColumnPredictor."""
        return self._predictor(batch)


def deployment(
    plan: "str | Path | Plan",
    *,
    max_batch: int | None = None,
    max_delay_ms: float = 2.0,
    name: str | None = None,
    device: str = "auto",
    options: Mapping[str, Any] | None = None,
    **serve_options: Any,
) -> Any:
    """An application of Ray Serve that answers for ``plan``: ``serve.run(deployment(path))``.

    ``plan``: a path that is there on all nodes, or a plan that is open, as MiniinferPredictor has it.

    Each replica has an engine and a Batcher (``max_batch``, ``max_delay_ms``): requests that come at once are computed together,
    and one that fails does so alone. Over HTTP it speaks the Open Inference Protocol for the model ``name``, by default the
    file's; ``handle.infer.remote({"x": array})`` gives the outputs by name. The device, and its threads, are those that Ray
    gave the replica (``ray_actor_options``); ``options`` are those of ``miniinfer_cli.load``, ``serve_options`` those of
    ``serve.deployment`` (num_replicas, ray_actor_options, autoscaling_config ...).
    """
    from ray import serve  # late: those who read data need none of it

    from miniinfer_cli.integrations.ray_replica import PlanReplica  # late: brings the server

    ongoing = max(_LEAST_ONGOING, _BATCHES_AHEAD * (max_batch or 0))
    made = serve.deployment(**{"name": "miniinfer", "max_ongoing_requests": ongoing, **serve_options})(PlanReplica)
    return made.bind(plan if isinstance(plan, Plan) else str(plan), max_batch, max_delay_ms, name, device, dict(options or {}))
