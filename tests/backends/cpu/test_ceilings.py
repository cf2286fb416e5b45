"""Ceilings of a CPU: small products and copies, counted rightly."""

from pathlib import Path

import pytest

from miniinfer_cli.backends.cpu import ceilings
from miniinfer_cli.backends.cpu.ceilings import Extents, last_cache_nbytes, measure_ceilings

TINY = Extents(matrix=32, copy_nbytes=1 << 12, seconds=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_ceiling_is_measured(threads: int):
    stages: list[str] = []
    found = measure_ceilings("a cpu", threads, stages.append, TINY, cache_nbytes=1 << 12)
    assert (found.device, found.threads, found.cache_nbytes) == ("a cpu", threads, 1 << 12)
    assert sorted(found.tflops) == ["matrix f32", "matrix f64", "vector f32", "vector f64"] and min(found.tflops.values()) > 0
    assert found.cache_gbps is not None and found.cache_gbps >= found.memory_gbps > 0
    assert found.step_us is not None and 0 < found.step_us < 1000
    assert (found.launch_us, found.h2d_pinned_gbps, len(stages)) == (None, None, 6)


def test_figures_count_what_is_done(monkeypatch: pytest.MonkeyPatch):
    def second(work, extents):
        work()
        return 1.0

    monkeypatch.setattr(ceilings, "_least_seconds", second)
    found = measure_ceilings("a cpu", 2, extents=TINY, cache_nbytes=1 << 12)
    assert found.tflops["matrix f32"] == 2 * 32**3 / 1e12
    assert found.tflops["vector f64"] == 2 * 16 * (1 << 16) / 8 / 1e12
    rounds = (1 << 20) // 4096  # so that a job takes its time
    assert found.memory_gbps == 2 * 4096 * 2 * rounds / 1e9, "read and written, by both threads"


@pytest.mark.parametrize(
    ("sizes", "expected"), [({}, 8 << 20), ({"index0": "32K", "index3": "36M"}, 36 << 20), ({"index0": "what"}, 8 << 20)]
)
def test_the_last_cache_is_the_largest(sizes: dict[str, str], expected: int, tmp_path: Path):
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(size + "\n")
    assert last_cache_nbytes(tmp_path) == expected
