"""Batches of Ray Data through a plan: every row once, and equal to what an engine gives here."""

import numpy as np
import pytest
import ray

import miniinfer_cli
from engine_format import read_plan
from miniinfer_cli.integrations.ray import MiniinferPredictor
from tests.ray_cluster.networks import net, requests

ROWS = 20_000


def columns_of(rows):
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_every_row_is_computed_once_by_two_actors(plan):
    given = requests(ROWS)
    items = ray.data.from_numpy([np.arange(begin, min(begin + 3001, ROWS)) for begin in range(0, ROWS, 3001)])

    def rows_of(batch):
        return {"id": batch["data"], "features": given["x"][batch["data"]], "k": given["k"][batch["data"]]}

    computed = items.map_batches(rows_of).map_batches(
        MiniinferPredictor,
        fn_constructor_kwargs={"plan": plan, "columns": {"x": "features"}, "outputs": {"y": "scores"}},
        batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    found = columns_of(computed.take_all())
    assert set(found) == {"id", "scores", "best"}
    order = np.argsort(found["id"])
    np.testing.assert_array_equal(found["id"][order], np.arange(ROWS))
    with miniinfer_cli.load(plan, "cpu") as engine:
        expected = engine.run(given)
    np.testing.assert_allclose(found["scores"][order], expected["y"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found["best"][order], expected["best"])


@ray.remote
class Actor:
    def __init__(self, *args, **kwargs):
        self.predictor = MiniinferPredictor(*args, **kwargs)

    def compute(self, batch):
        return self.predictor(batch)

    def facts(self):
        return self.predictor.engine.device, self.predictor.engine.model.facts().get("threads")


def test_a_plan_with_a_fixed_batch_takes_what_is_left_over(tmp_path):
    miniinfer_cli.build(net("8"), tmp_path / "fixed.plan")
    given = requests(21)
    found = ray.get(Actor.remote(tmp_path / "fixed.plan").compute.remote(given))
    with miniinfer_cli.load(tmp_path / "fixed.plan", "cpu") as engine:
        expected = [engine.run({n: np.resize(a[i : i + 8], (8, *a.shape[1:])) for n, a in given.items()}) for i in (0, 8, 16)]
    np.testing.assert_allclose(found["y"], np.concatenate([e["y"] for e in expected])[:21], rtol=1e-5, atol=1e-7)


def test_threads_are_those_that_ray_gave(plan):
    actors = [Actor.options(num_cpus=n).remote(plan) for n in (1, 2)]
    assert ray.get([a.facts.remote() for a in actors]) == [("cpu", 1), ("cpu", 2)]
    assert ray.get(Actor.options(num_cpus=1).remote(plan, threads=3).facts.remote()) == ("cpu", 3)


def test_an_actor_refuses_another_plan_than_the_one_that_was_sent(tmp_path):
    path = tmp_path / "net.plan"
    miniinfer_cli.build(net(), path)
    with read_plan(path) as sent:
        assert ray.get(Actor.remote(sent).facts.remote())[0] == "cpu"
        reference = ray.put(sent)
    miniinfer_cli.build(net("6"), path)
    with pytest.raises(Exception, match="this is not the plan that was sent"):
        ray.get(Actor.remote(reference).facts.remote())
