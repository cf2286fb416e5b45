"""States on a GPU: turns of decoders and of states that are replaced, against the CPU; nothing is made after the first turns."""

import numpy as np
import pytest

import miniinfer_cli
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.cached_models import TOKENS, group_query_attention, logits_of, tensor_scatter
from tests.everywhere import parsed

MODELS = {
    "grouped": lambda: (group_query_attention(positions=300), 1e-4),
    "window": lambda: (group_query_attention(window=7, positions=300), 1e-4),
    "scatter": lambda: (tensor_scatter(64), 1e-4),
    "llama": lambda: (generate("tinyllama", Request(small=True)), 1e-4),
    "llama in f16": lambda: (generate("tinyllama", Request(small=True), dtype="f16"), 2e-2),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pdl", [True, False])
def test_turns_beside_the_cpu(name, pdl):
    model, limit = MODELS[name]()
    plan = miniinfer_cli.build(model, kv_cache=64, tf32=False)
    ids = np.random.default_rng(0).integers(0, TOKENS, (3, 60))
    ends = [20, *range(21, 50), 60]
    with miniinfer_cli.load(plan, "cuda:0", pdl=pdl) as engine, miniinfer_cli.load(plan, "cpu") as exact:
        found = []
        for one in (engine, exact):
            with one.create_context() as context:
                futures = [context.enqueue({"input_ids": ids[:, a:b]}) for a, b in zip([0, *ends], ends, strict=False)]
                found.append(np.concatenate([f.result()["logits"] for f in futures], 1).astype(np.float64))
        assert np.linalg.norm(found[0] - found[1]) <= limit * np.linalg.norm(found[1])


def test_nothing_is_made_captured_or_allocated_after_the_first_turns():
    plan = miniinfer_cli.build(generate("tinyllama", Request(small=True), dtype="f16"), kv_cache=512)
    token = {"input_ids": np.array([[3]])}
    with miniinfer_cli.load(plan, "cuda:0") as engine, engine.create_context() as context:
        context.run({"input_ids": np.zeros((1, 40), np.int64)})
        for _ in range(8):
            context.run(token)

        def made():
            stats = engine.stats()
            return stats["programs_made"], stats["cuda_graphs"]["captures"], stats["device_allocations"]

        before = made()
        for _ in range(300):
            context.run(token)
        assert made() == before
        assert context.length == 348


def test_forks_slots_and_rows_that_are_forgotten():
    plan = miniinfer_cli.build(group_query_attention(), kv_cache=64, tf32=False)
    ids = np.random.default_rng(1).integers(0, TOKENS, (2, 30))
    with miniinfer_cli.load(plan, "cuda:0") as engine, engine.create_context() as context:
        context.run({"input_ids": ids[:, :12]}, counts=[12, 5])
        with context.fork() as fork:
            context.reset(0)
            got = fork.run({"input_ids": np.stack([ids[0, 12:20], ids[1, 5:13]])})["logits"]
            np.testing.assert_allclose(got[0], logits_of(ids)[0, 12:20], rtol=0, atol=1e-4)
            np.testing.assert_allclose(got[1], logits_of(ids)[1, 5:13], rtol=0, atol=1e-4)
            fork.truncate(3)
            got = fork.run({"input_ids": ids[:, 3:4]})["logits"]
            np.testing.assert_allclose(got, logits_of(ids)[:, 3:4], rtol=0, atol=1e-4)
        got = context.run({"input_ids": np.stack([ids[0, :6], ids[1, 5:11]])})["logits"]
        np.testing.assert_allclose(got[0], logits_of(ids)[0, :6], rtol=0, atol=1e-4)
        np.testing.assert_allclose(got[1], logits_of(ids)[1, 5:11], rtol=0, atol=1e-4)


def test_states_that_are_replaced():
    text = "g (float[n,4] x, float[n,4] h) => (float[n,4] y, float[n,4] hn) { s = Add(x, h) hn = Tanh(s) y = Mul(hn, x) }"
    xs = np.random.default_rng(2).standard_normal((40, 3, 4)).astype("f")
    with (
        miniinfer_cli.load(miniinfer_cli.build(parsed(text), state=["h:hn"]), "cuda:0") as engine,
        engine.create_context() as context,
    ):
        arrays = engine.check({"x": xs[0]})
        futures = []
        for x in xs:
            context.start(arrays).wait()  # which leaves them
            futures.append(context.enqueue({"x": x}))
        h = np.zeros((3, 4))
        for x, future in zip(xs, futures, strict=True):
            h = np.tanh(x + h)
            np.testing.assert_allclose(future.result()["y"], h * x, rtol=0, atol=1e-5)
