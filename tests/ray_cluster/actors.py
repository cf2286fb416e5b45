"""An actor of the tests: a module of its own, since each process of Ray imports all that the module of its class imports."""

import ray

from miniinfer_cli.integrations.ray import MiniinferPredictor


@ray.remote
class Actor:
    """Computes with predictors that are made in its process, and tells of them."""

    def compute(self, plan, batch):
        return MiniinferPredictor(plan)(batch)

    def facts(self, plan, **options):
        predictor = MiniinferPredictor(plan, **options)
        return predictor.engine.device, predictor.engine.model.facts().get("threads")
