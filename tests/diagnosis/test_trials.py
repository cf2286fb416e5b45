"""What is tried in which situation, and when an advice comes of it."""

import pytest

from miniinfer_cli.diagnosis.bounds import Run
from miniinfer_cli.diagnosis.change import Change
from miniinfer_cli.diagnosis.findings import Kind
from miniinfer_cli.diagnosis.trials import Situation, Trial, advice_of, is_hopeless, trials_for
from tests.diagnosis.made import layer, run

ON_GPU = run(layer("a", 1.0, mb=3000))
ON_CPU = run(layer("a", 1.0, mb=3000), device="cpu")


def tried(kind: Kind = Kind.MEMORY, of: Run = ON_GPU, **situation) -> dict[str, Trial]:
    return {t.name: t for t in trials_for(of, kind, Situation(**situation))}


def test_a_gpu_may_always_have_two_streams():
    assert list(tried()) == ["2 streams"]
    assert tried()["2 streams"].flags == {"--streams": "2"}
    assert tried(of=run(layer("a", 1.0, mb=3000), streams=4)) == {}


@pytest.mark.parametrize(
    ("name", "option", "flag"),
    [
        ("CUDA graph", "cuda_graph", "--no-cuda-graph"),
        ("overlap", "overlap", "--no-overlap"),
        ("dependent launches", "pdl", "--no-pdl"),
    ],
)
def test_what_flags_switched_off(name, option, flag):
    trial = tried(**{option: False})[name]
    assert (trial.change, trial.command, trial.flags) == (Change(options={option: True}), "run", {flag: False})
    assert name not in tried(of=ON_CPU, **{option: False})


def test_tf32_where_there_are_products_that_want_it():
    trial = tried(tf32=False, f32_products=3)["TF32"]
    assert (trial.change, trial.flags) == (Change(tf32=True), {"--no-tf32": False})
    assert "TF32" not in tried(tf32=False)
    assert "TF32" not in tried(f32_products=3)
    assert "TF32" not in tried(tf32=False, f32_products=3, of=ON_CPU)


def test_f16_where_products_are_f32():
    assert tried(Kind.COMPUTE, f32_products=3)["f16"].change == Change(half=True)
    assert "f16" not in tried(Kind.TRANSFER, f32_products=3)
    assert "f16" not in tried(Kind.COMPUTE)
    assert list(tried(Kind.LAUNCH, f32_products=3, batch=1, fixable=True, cuda_graph=False))[-1] == "f16"  # which takes longest
    assert "f16" not in tried(Kind.COMPUTE, f32_products=3, of=ON_CPU)


def test_smaller_types_come_first_where_a_gpu_is_kept_busy():
    busy, tiny = run(*[layer(n, 1.0, mb=3000) for n in "ab"]), run(*[layer(n, 0.005, mb=15) for n in "ab"])
    assert list(tried(Kind.BALANCED, busy, f32_products=3, batch=64)) == ["f16", "batch 512", "2 streams"]
    assert list(tried(Kind.LAUNCH, busy, f32_products=3, batch=1)) == ["batch 8", "2 streams", "f16"]
    assert list(tried(Kind.MEMORY, tiny, f32_products=3, batch=1)) == ["batch 8", "2 streams", "f16"]


def test_bytes_and_pinned_memory_where_copies_bound_it():
    found = tried(Kind.TRANSFER, wide_inputs={"image": 1 << 20, "sizes": 16}, batch=1)
    assert list(found) == ["uint8 input", "pinned input", "2 streams"]  # a larger batch has more to copy
    assert found["uint8 input"].change == Change(uint8=("image",))
    assert found["uint8 input"].names == ("image",)
    assert found["pinned input"].change == Change(pinned=True)
    assert "uint8 input" not in tried(Kind.MEMORY, wide_inputs={"image": 1 << 20})
    assert "uint8 input" not in tried(Kind.TRANSFER, wide_inputs={"sizes": 16})


def test_all_passes_where_some_were_left_out():
    low = tried(opt_level=1, disabled=("fuse_conv",))["all passes"]
    assert (low.change, low.command) == (Change(full=True), "build")
    assert low.flags == {"--opt-level": "2", "--disable-pass": False}
    assert tried(disabled=("fuse_conv",))["all passes"].flags == {"--disable-pass": False}
    assert "all passes" not in tried(opt_level=3)


def test_outputs_that_keep_work_from_being_fused():
    trial = tried(inner_outputs=("h1", "h2"))["without inner outputs"]
    assert (trial.change, trial.names) == (Change(without=("h1", "h2")), ("h1", "h2"))


def test_sizes_that_passes_would_use():
    assert tried(fixable=True)["fixed sizes"].change == Change(fixed=True)


def test_a_larger_batch():
    assert tried(batch=2)["batch 16"].change == Change(batch=16, was=2)
    assert tried(batch=2, batch_dim="n")["batch 16"].flags == {"--batch": "16", "--batch-dim": "n"}
    assert "batch 12" in tried(batch=2, most_batch=12)
    assert not any(name.startswith("batch") for name in tried(batch=12, most_batch=12))


def test_threads_of_a_cpu():
    assert tried(of=ON_CPU, threads=1, processors=4)["4 threads"].change == Change(options={"threads": 4})
    assert tried(Kind.LAUNCH, of=ON_CPU, threads=4, processors=4)["1 thread"].flags == {"--threads": "1"}
    assert "1 thread" not in tried(Kind.MEMORY, of=ON_CPU, threads=4, processors=4)
    assert "4 threads" not in tried(Kind.HOST_STEP, of=ON_CPU, threads=1, processors=4)
    assert not any("thread" in name for name in tried(threads=1, processors=4))


def test_two_streams_of_a_cpu():
    """Of one thread each where one computes and others are idle; else of half of the threads."""
    assert tried(of=ON_CPU, threads=1, processors=2)["2 streams"].change == Change(streams=2)
    assert "2 streams" not in tried(of=ON_CPU, threads=1, processors=1)
    halved = tried(of=ON_CPU, threads=4, processors=4)["2 streams, fewer threads"]
    assert halved.change == Change(streams=2, options={"threads": 2})
    assert halved.flags == {"--streams": "2", "--threads": "2"}
    assert tried(of=run(layer("a", 1.0), device="cpu", streams=2), threads=4, processors=4) == {}


TRIAL = Trial("faster", Change(streams=2), "run two at once", "--streams 2", "run", {"--streams": "2"}, "a note", ("x",))


def test_an_advice_is_what_helped_each_time():
    advice = advice_of(TRIAL, [(10.0, 7.5), (11.0, 8.25), (10.0, 7.0)], wall_ms=20.0)
    assert advice is not None and advice.gain is not None
    assert (advice.gain.before_ms, advice.gain.after_ms, advice.gain.basis) == (20.0, pytest.approx(15.0), "measured")
    assert (advice.gain.saved_ms, advice.gain.share) == (pytest.approx(5.0), pytest.approx(0.25))
    assert advice.to_json() == {
        "name": "faster",
        "what": "run two at once",
        "how": "--streams 2",
        "command": "run",
        "flags": {"--streams": "2"},
        "names": ["x"],
        "gain_ms": pytest.approx(5.0),
        "before_ms": 20.0,
        "after_ms": pytest.approx(15.0),
        "basis": "measured",
        "of": "throughput",
        "note": "a note",
    }
    alone = advice_of(TRIAL, [(10.0, 7.0), (12.0, 8.5), (11.0, 7.0)])
    assert alone is not None and alone.gain is not None
    assert (alone.gain.before_ms, alone.gain.of) == (11.0, "latency")


def test_one_comparison_of_four_may_be_another():
    advice = advice_of(TRIAL, [(10.0, 7.5), (10.0, 7.5), (15.0, 7.5), (10.0, 7.5)], wall_ms=10.0)
    assert advice is not None and advice.gain is not None and advice.gain.share == pytest.approx(0.25)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(10.0, 8.6), (10.0, 8.6), (10.0, 8.6)],  # 14 %
        [(10.0, 5.0), (10.0, 9.5), (10.0, 5.0)],  # once it did not help
        [(10.0, 5.0), (20.0, 9.5), (20.0, 5.0)],  # once it took as long as without it
        [(10.0, 5.0), (10.0, 5.0)],  # too few to tell
        [(10.0, 8.0), (10.0, 6.0), (10.0, 7.2)],  # 20 to 40 %: they do not agree on how much it gains
        [(10.0, 8.5), (10.0, 7.0), (10.0, 8.0), (10.0, 6.0)],
        [(10.0, 12.0)],
        [(0.0, 0.0)],
    ],
)
def test_no_advice_where_the_gain_is_small_or_unsteady(pairs):
    assert advice_of(TRIAL, pairs, wall_ms=10.0) is None


def test_a_first_comparison_may_end_a_trial():
    assert is_hopeless((10.0, 9.5)) and is_hopeless((0.0, 0.0))
    assert not is_hopeless((10.0, 8.5))
