"""An actor of the tests: a module of its own, since each process of Ray imports all that the module of its class imports."""

import asyncio

import ray

from miniinfer_cli.integrations.ray import MiniinferPredictor
from miniinfer_cli.integrations.ray_replica import PlanReplica


@ray.remote
class Actor:
    """Computes with predictors that are made in its process, and tells of them."""

    def compute(self, plan, batch):
        return MiniinferPredictor(plan)(batch)

    def facts(self, plan, **options):
        predictor = MiniinferPredictor(plan, **options)
        return predictor.engine.device, predictor.engine.model.facts().get("threads")

    def replica(self, plan, inputs):
        """The name of the model that a replica of Ray Serve has for the plan, and its outputs."""
        replica = PlanReplica(plan, 4, 2.0, None, "auto", {})
        return replica.name, asyncio.run(replica.infer(inputs))
