"""CachedAttention on the emulated device: one token by parts of the cache, and by other operations where that does not reach."""

from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.target import Target
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic, offered
from tests.backends.nodes import make_graph

F16 = np.float16


def normal(*shape: int, dtype: Any = F16, seed: int = 0) -> Any:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(dtype)


def given(
    heads: int = 4, kv_heads: int = 2, new: int = 1, size: int = 16, v_size: int = 16, rows: int = 100, dtype: Any = F16
) -> list[Any]:
    """Operands of two slots, one of which holds nothing and one all but what is new."""
    fresh = [
        normal(2, h, new, s, dtype=dtype, seed=i)
        for i, (h, s) in enumerate(((heads, size), (kv_heads, size), (kv_heads, v_size)))
    ]
    caches = [normal(2, kv_heads, rows, s, dtype=dtype, seed=5) for s in (size, v_size)]
    at = np.array([0, rows - new])
    return [*fresh, *caches, at, at + new, *(normal(2, new, size // 2, dtype=dtype, seed=7),) * 2]


def test_every_tactic() -> None:
    keys = check_every_tactic("CachedAttention", *given(), target=Target(), tolerance=3e-3, domain="miniinfer", n_outputs=3)
    assert keys == ["parts of the cache"]


BY_CLUSTERS = {
    "halves": {"size": 64, "v_size": 64, "heads": 8, "kv_heads": 1, "rows": 70},
    "more rows than warps": {"size": 64, "v_size": 64, "heads": 4, "kv_heads": 2, "rows": 2500},
    "f32": {"size": 64, "v_size": 64, "heads": 6, "kv_heads": 2, "dtype": np.float32, "rows": 1100},
    "large heads": {"size": 128, "v_size": 128, "heads": 8, "kv_heads": 1, "rows": 40},
    "large heads of f32": {"size": 128, "v_size": 128, "heads": 3, "kv_heads": 3, "dtype": np.float32},
}


@pytest.mark.parametrize("name", BY_CLUSTERS)
def test_clusters(name: str) -> None:
    arrays, tolerance = given(**BY_CLUSTERS[name]), 3e-3 if "f32" not in name else 1e-5
    for attrs in ({}, {"interleaved": 1, "softcap": 2.0, "left_window_size": 20}):
        both = check_every_tactic(
            "CachedAttention", *arrays, target=Target(), tolerance=tolerance, domain="miniinfer", n_outputs=3, **attrs
        )
        assert both == ["a cluster for each head of keys", "parts of the cache"]


def test_many_rows_are_shared_by_more_blocks_than_a_cluster_has() -> None:
    few, many = (given(size=64, v_size=64, rows=rows) for rows in (4096, 4097))
    assert [keys_of(arrays)[0] for arrays in (few, many)] == ["a cluster for each head of keys", "parts of the cache"]


def keys_of(arrays: list[Any], target: Target | None = None) -> list[str]:
    graph = make_graph("CachedAttention", arrays, domain="miniinfer", n_outputs=3, constants=(), body=None, attrs={})
    return [t.key for t in offered(graph, arrays, target or Target())]


def test_clusters_are_for_sm_90() -> None:
    arrays = given(size=64, v_size=64)
    assert keys_of(arrays, Target(arch=80)) == keys_of(arrays, Target(arch=100)) == ["parts of the cache"]
    assert keys_of(given(size=64, v_size=64, heads=9, kv_heads=1)) == keys_of(given(size=64, v_size=32)) == ["parts of the cache"]


@pytest.mark.parametrize(
    "sizes",
    [
        {"heads": 2, "kv_heads": 2},
        {"heads": 32, "kv_heads": 2},
        {"heads": 6, "kv_heads": 2, "size": 64, "v_size": 64},
        {"size": 256, "v_size": 256, "rows": 65},
        {"size": 112, "v_size": 2},
        {"rows": 64},
        {"rows": 1},
    ],
)
def test_sizes(sizes: Any) -> None:
    check_op("CachedAttention", *given(**sizes), domain="miniinfer", tolerance=3e-3, n_outputs=3)


@pytest.mark.parametrize(
    "sizes",
    [
        {"new": 2},
        {"heads": 34},
        {"size": 24},
        {"v_size": 5},
        {"size": 272},
        {"dtype": np.float64},
    ],
)
def test_other_operations_do_the_rest(sizes: Any) -> None:
    instead = {"RotaryEmbedding", "TensorScatter", "Attention"}
    check_op("CachedAttention", *given(**sizes), domain="miniinfer", tolerance=3e-3, n_outputs=3, instead=instead)
