"""Thousands of requests of 64 threads: none is lost, told twice or mixed up. ``make fuzz`` runs a hundred thousand."""

import os

import pytest

from tests.serving.stress import stress

SCALE = int(os.environ.get("MINIINFER_FUZZ_SCALE", "1"))


@pytest.mark.parametrize("contexts", [1, 2])
def test_each_of_many_requests_ends_once_and_as_it_should(contexts):
    found = stress(3_000 if SCALE == 1 else 100_000, seed=contexts, contexts=contexts)
    assert {"good", "poisoned", "cancelled", "deadline"} == set(found["ended"])
    assert found["mean_batch"] > 1.5
