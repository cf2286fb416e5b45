"""Batches of Ray Data through a plan: every row once, and equal to what an engine gives here."""

import numpy as np
import pytest
import ray

import miniinfer_cli
from engine_format import read_plan
from miniinfer_cli.integrations.ray import MiniinferPredictor
from tests.ray_cluster.actors import Actor
from tests.served_net import net, requests

ROWS = 20_000


def test_every_row_is_computed_once_by_two_actors(plan):
    given = requests(ROWS)

    def rows_of(batch):
        return {"id": batch["id"], "features": given["x"][batch["id"]], "k": given["k"][batch["id"]]}

    numbers = ray.data.range(ROWS, concurrency=1, override_num_blocks=7)  # of 2 857 rows: the last batch of each is not full
    computed = numbers.map_batches(rows_of, compute=ray.data.TaskPoolStrategy(size=1)).map_batches(
        MiniinferPredictor,
        fn_constructor_kwargs={"plan": plan, "columns": {"x": "features"}, "outputs": {"y": "scores"}},
        batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    batches = list(computed.iter_batches(batch_size=None, batch_format="numpy"))
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert set(found) == {"id", "scores", "best"}
    order = np.argsort(found["id"])
    np.testing.assert_array_equal(found["id"][order], np.arange(ROWS))
    with miniinfer_cli.load(plan, "cpu") as engine:
        expected = engine.run(given)
    np.testing.assert_allclose(found["scores"][order], expected["y"], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found["best"][order], expected["best"])


@pytest.fixture(scope="module")
def actor():
    """One for several tests: its process takes seconds to import what it needs."""
    return Actor.options(num_cpus=1).remote()


def test_a_plan_with_a_fixed_batch_takes_what_is_left_over(actor, tmp_path):
    miniinfer_cli.build(net("8"), tmp_path / "fixed.plan")
    given = requests(21)
    found = ray.get(actor.compute.remote(tmp_path / "fixed.plan", given))
    with miniinfer_cli.load(tmp_path / "fixed.plan", "cpu") as engine:
        expected = [engine.run({n: np.resize(a[i : i + 8], (8, *a.shape[1:])) for n, a in given.items()}) for i in (0, 8, 16)]
    np.testing.assert_allclose(found["y"], np.concatenate([e["y"] for e in expected])[:21], rtol=1e-5, atol=1e-7)


def test_a_plan_in_memory_is_answered_for_under_its_graphs_name(actor):
    with miniinfer_cli.load(miniinfer_cli.build(net()), "cpu") as engine:
        given = requests(1)
        name, outputs = ray.get(actor.replica.remote(engine.plan, given))
        np.testing.assert_allclose(outputs["y"], engine.run(given)["y"], rtol=1e-5, atol=1e-7)
    assert name == "g"


def test_threads_are_those_that_ray_gave(actor, plan):
    two = Actor.options(num_cpus=2).remote()
    assert ray.get([actor.facts.remote(plan), two.facts.remote(plan)]) == [("cpu", 1), ("cpu", 2)]
    assert ray.get(actor.facts.remote(plan, threads=3)) == ("cpu", 3)


def test_an_actor_refuses_another_plan_than_the_one_that_was_sent(actor, tmp_path):
    path = tmp_path / "net.plan"
    miniinfer_cli.build(net(), path)
    with read_plan(path) as sent:
        assert ray.get(actor.facts.remote(sent))[0] == "cpu"
        reference = ray.put(sent)
    miniinfer_cli.build(net("6"), path)
    with pytest.raises(Exception, match="this is not the plan that was sent"):
        ray.get(actor.facts.remote(reference))
