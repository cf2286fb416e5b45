"""What bounds a layer and a run, told from made figures; each claim with the numbers that prove it."""

from dataclasses import replace

import pytest

from miniinfer_cli.diagnosis.bounds import diagnose_layers, diagnose_run, kind_of_layer
from miniinfer_cli.diagnosis.findings import Figure, Kind
from tests.diagnosis.made import CPU, GPU, VECTOR, layer, run


def figures(finding) -> dict[str, float]:
    return {f.what: pytest.approx(f.value) for f in finding.evidence}


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (layer("n", 2.0, gflop=30, mb=2000, rate=VECTOR), Kind.COMPUTE),
        (layer("n", 2.0, gflop=15, mb=4000, rate=VECTOR), Kind.MEMORY),  # both at once
        (layer("n", 2.0, gflop=1500, mb=10), Kind.COMPUTE),
        (layer("n", 2.0, gflop=10, mb=6000), Kind.MEMORY),
        (layer("n", 0.004, gflop=0.01, mb=0.1), Kind.LAUNCH),
        (layer("n", 0.0051, gflop=0.01, mb=0.1), Kind.LAUNCH),  # far from every ceiling, and short
        (layer("n", 0.05, mb=40), Kind.LAUNCH),
        (layer("n", 0.05, mb=51), Kind.MEMORY),
        (layer("n", 0.051, mb=40), Kind.BALANCED),
        (layer("n", 0.051, gflop=12, mb=1), Kind.BALANCED),
        (layer("n", 0.004, gflop=2.0), Kind.COMPUTE),  # small, and its work alone takes half of that
        (layer("n", 0.004), Kind.LAUNCH),
        (layer("n", 0.5), None),
        (layer("n", 0.5, None, gflop=1500), None),
        (layer("n", 0.5, gflop=1500, tactic="host"), Kind.HOST_STEP),
        (layer("n", 0.001, tactic="host"), Kind.HOST_STEP),
        (layer("n", 0.003, mb=7, gap_ms=0.003), Kind.MEMORY),  # the gap counts as well
        (layer("n", 0.003, mb=7, gap_ms=0.002), Kind.MEMORY),  # its work alone takes longer than a step
        (layer("n", 0.003, mb=3.9, gap_ms=0.002), Kind.LAUNCH),
    ],
)
def test_what_bounds_a_layer(made, kind):
    assert kind_of_layer(made, GPU) == kind


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (layer("n", 0.1, CPU, mb=0.01), Kind.MEMORY),  # long, and there is nothing else to wait for
        (layer("n", 0.1, CPU, gflop=0.001), Kind.COMPUTE),
        (layer("n", 0.05, CPU, mb=0.05), Kind.LAUNCH),
        (layer("n", 0.05, CPU, mb=0.2), Kind.MEMORY),
        (layer("n", 0.025, CPU, mb=0.04), Kind.LAUNCH),
        (layer("n", 1.0, CPU, gflop=0.001, mb=2.1, rate=VECTOR), Kind.MEMORY),
        (layer("n", 1.0, CPU, gflop=0.001, mb=1.9, rate=VECTOR), Kind.COMPUTE),  # of exponentials, say: it waits for no memory
        (layer("n", 1.0, CPU, mb=0.7, rate=VECTOR), Kind.MEMORY),  # computes nothing
        (layer("n", 1.0, CPU, gflop=0.001, tactic="reference", kind="Det"), Kind.HOST_STEP),
        (layer("n", 1.0, CPU, gflop=0.001, mb=3, tactic="reference", kind="ReduceMean", rate=VECTOR), Kind.MEMORY),
        (layer("n", 1.0, CPU, mb=1, tactic="reference", kind="Transpose"), Kind.MEMORY),
        (layer("n", 1.0, CPU, mb=1, tactic="reference", kind="miniinfer.ConvNHWC"), Kind.HOST_STEP),
        (layer("n", 0.04, CPU, mb=0.01, tactic="reference", kind="Transpose"), Kind.LAUNCH),
        (layer("n", 0.025, CPU, tactic="reference", kind="Unique"), Kind.LAUNCH),
        (layer("n", 0.026, CPU, tactic="reference", kind="Unique"), Kind.HOST_STEP),
    ],
)
def test_what_bounds_a_layer_of_a_cpu(made, kind):
    assert kind_of_layer(made, CPU) == kind


def test_elementwise_work_in_the_cache_of_a_cpu():
    cached = replace(CPU, cache_nbytes=1 << 30, cache_gbps=50.0)
    assert kind_of_layer(layer("n", 1.0, cached, gflop=0.001, mb=4.1, rate=VECTOR), cached) is Kind.MEMORY
    assert kind_of_layer(layer("n", 1.0, cached, gflop=0.001, mb=3.9, rate=VECTOR), cached) is Kind.COMPUTE


def test_a_chain_of_large_products():
    found = diagnose_run(run(*(layer(f"n{i}", 2.0, gflop=1500, mb=100) for i in range(3)), layer("m", 1.0, mb=3000)))
    assert (found.kind, found.of) == (Kind.COMPUTE, "run")
    assert figures(found) == {"of the layers' time": 100 * 6 / 7, "reached": 750.0, "of the ceiling": 75.0}


def test_large_pointwise_chains():
    found = diagnose_run(run(layer("a", 2.0, mb=6000, gflop=1), layer("b", 1.0, gflop=800)))
    assert found.kind is Kind.MEMORY
    assert figures(found) == {"of the layers' time": 100 * 2 / 3, "reached": 3000.0, "of the ceiling": 75.0}


def test_a_large_input_with_a_tiny_net():
    tiny = run(layer("a", 0.02, mb=40), copies_in_ms=1.0, input_nbytes=40_000_000, wall_ms=1.05)
    found = diagnose_run(tiny)
    assert found.kind is Kind.TRANSFER
    assert figures(found) == {"inputs": 40_000_000, "copying": 1.0, "copied at": 40.0, "pinned copies reach": 50.0}
    out = run(layer("a", 0.02, mb=40), copies_out_ms=1.0, output_nbytes=20_000_000)
    assert "copying the outputs" in diagnose_run(out).text
    assert diagnose_run(run(layer("a", 2.0, mb=6000), copies_in_ms=1.0, input_nbytes=4)).kind is Kind.MEMORY


def test_tiny_operations_that_are_launched_one_by_one():
    small = [layer(f"n{i}", 0.002, mb=0.01) for i in range(300)]
    found = diagnose_run(run(*small, enqueue_ms=1.5, captured=False, compute_ms=1.6))
    assert found.kind is Kind.LAUNCH
    assert "every launch by itself" in found.text
    assert figures(found) == {"enqueuing": 1.5, "computing": 1.6, "steps": 300}
    replayed = diagnose_run(run(*small, compute_ms=0.6))
    assert replayed.kind is Kind.LAUNCH
    assert figures(replayed) == {"of the layers' time": 100, "a layer takes": 2.0, "least that a step takes": 1.0}
    assert "300 of 300 layers are so small that what a step costs at least" in replayed.text


def test_far_from_every_ceiling():
    """Long layers that reach little of what a GPU can do are bound by nothing that is known; the CPU's by what is nearer."""
    far = run(layer("a", 2.0, mb=800), layer("b", 1.0, mb=400))
    found = diagnose_run(far)
    assert (found.kind, found.text) == (
        Kind.BALANCED,
        "2 of 2 layers are far from every ceiling, and not short: something else costs most of their time",
    )
    assert figures(found) == {"of the layers' time": 100, "of the ceiling of the bandwidth of memory": 10}
    of_a, _ = diagnose_layers(far)
    assert (of_a.kind, of_a.text) == (
        Kind.BALANCED,
        "it is nearest to the ceiling of the bandwidth of memory, and reaches 10 % of it: something else costs most of the time",
    )
    assert figures(of_a) == {
        "time": 2.0,
        "of the layers' time": 100 * 2 / 3,
        "reached": 400.0,
        "least time under the ceiling": 0.2,
    }
    on_cpu = diagnose_run(run(layer("a", 2.0, CPU, mb=2), device="cpu", wall_ms=2))
    assert on_cpu.kind is Kind.MEMORY
    assert "and reach 10 % of it: something else costs most of the time" in on_cpu.text


def test_kernels_too_short_to_fill_a_gpu():
    """One image through a network: far from every ceiling, since kernels begin and end. Each layer says what the run says."""
    short = [layer(f"n{i}", 0.012, mb=4.8) for i in range(40)]
    found = diagnose_run(run(*short, *(layer(f"m{i}", 0.003, mb=0.1) for i in range(10))))
    assert found.kind is Kind.LAUNCH
    assert "50 of 50 layers are too short to fill the device" in found.text
    assert figures(found) == {
        "of the layers' time": 100,
        "a layer takes": 10.2,
        "least that a step takes": 1.0,
        "of the ceiling of the bandwidth of memory": pytest.approx(100 * (40 * 1.2 + 10 * 0.025) / 510),
    }
    of_one, *_ = diagnose_layers(run(*short[:5]))
    assert (of_one.kind, of_one.text) == (
        Kind.LAUNCH,
        "it is short, and most of its time is beginning and ending: "
        "it is nearest to the ceiling of the bandwidth of memory, and reaches 10 % of it",
    )
    assert figures(of_one) == {
        "time": 0.012,
        "of the layers' time": 20,
        "least that a step takes": 1.0,
        "reached": 400.0,
        "least time under the ceiling": 0.0012,
    }
    assert diagnose_run(run(*(layer(f"n{i}", 0.012, mb=20) for i in range(50)))).kind is Kind.MEMORY


def test_short_layers_of_a_cpu():
    calls = run(*(layer(f"n{i}", 0.04, CPU, mb=0.06) for i in range(9)), device="cpu", wall_ms=0.4)
    assert diagnose_run(calls).text == "9 of 9 layers are so short that calls cost most of their time"


def test_rates_below_a_teraflop_are_told_in_smaller_units():
    found = diagnose_run(run(layer("a", 20.0, CPU, gflop=1.5), device="cpu", wall_ms=20))
    assert figures(found)["reached"] == 75 and found.evidence[1].unit == "GFLOP/s"


def test_gaps_are_what_launches_cost():
    spread = run(*(layer(f"n{i}", 0.02, mb=60, gap_ms=0.03) for i in range(10)), compute_ms=0.5, wall_ms=0.5)
    found = diagnose_run(spread)
    assert (found.kind, found.text) == (Kind.LAUNCH, "in the gaps in front of 10 layers the device waits for launches")
    assert figures(found) == {"of the layers' time": 60, "gaps": 0.3, "a gap takes": 30.0, "least that a step takes": 1.0}
    assert diagnose_run(run(*(layer(f"n{i}", 0.02, mb=60, gap_ms=0.01) for i in range(10)))).kind is Kind.MEMORY


def test_waiting_between_two_inferences():
    found = diagnose_run(run(layer("a", 1.0, mb=3000), wall_ms=1.5))
    assert found.kind is Kind.SYNCHRONIZATION
    assert figures(found) == {"wall time": 1.5, "copies and computing": 1.0}
    assert diagnose_run(run(layer("a", 1.0, mb=3000), wall_ms=1.2)).kind is Kind.MEMORY
    # One after the other, copies are no waiting.
    alone = run(layer("a", 1.0, mb=3000), wall_ms=1.9, copies_in_ms=0.8, overlapped=False)
    assert diagnose_run(alone).kind is Kind.MEMORY


def test_several_streams_are_told_by_the_wall_time():
    """Each waits for the others, and its copies with it: what a copy takes by itself counts."""
    shared = run(layer("a", 0.1, mb=300), streams=4, wall_ms=0.1, copies_in_ms=0.3, input_nbytes=100_000, compute_ms=0.4)
    assert diagnose_run(shared).kind is Kind.MEMORY
    link = run(layer("a", 0.1, mb=300), streams=4, wall_ms=0.1, copies_in_ms=0.3, input_nbytes=4_000_000, compute_ms=0.4)
    assert diagnose_run(link).kind is Kind.TRANSFER
    host = run(layer("a", 0.1, mb=300), streams=4, wall_ms=0.1, enqueue_ms=0.08, compute_ms=0.4)
    assert diagnose_run(host).kind is Kind.LAUNCH


def test_host_steps():
    found = diagnose_run(run(layer("a", 3.0, tactic="host", kind="Unique"), layer("b", 1.0, mb=3000), enqueue_ms=3.9))
    assert found.kind is Kind.HOST_STEP
    waiting = run(layer("a", 3.0, tactic="host", kind="Det"), layer("b", 0.1, mb=300), compute_ms=0.5, wall_ms=3.6)
    assert diagnose_run(waiting).kind is Kind.HOST_STEP, "what waits, waits for the host"
    assert found.text == "1 of 2 layers are computed by references on the host: Unique"
    assert figures(found) == {"of the layers' time": 75, "host steps": 3.0, "all layers": 4.0}


def test_nothing_by_itself_bounds_it():
    found = diagnose_run(run(layer("a", 2.0, mb=6000), layer("b", 2.0, gflop=1500), layer("c", 1.0)))
    assert found.kind is Kind.BALANCED
    assert figures(found) == {"memory layers": 40, "compute layers": 40, "layers of which nobody knows": 20}
    found = diagnose_run(run(layer("a", 2.0, mb=6000), layer("b", 2.0, mb=4), *(layer("c", 0.02, mb=4) for _ in range(50))))
    assert figures(found) == {
        "memory layers": 40,
        "layers far from every ceiling": 40,
        "short layers, and gaps in front of layers": 20,
    }


def test_no_ceilings_no_claim():
    found = diagnose_run(run(layer("a", 2.0, None, gflop=1500), ceilings=None))
    assert (found.kind, found.text) == (Kind.BALANCED, "no ceilings of this device are known, nor what its layers do")
    assert diagnose_run(run(ceilings=None)).text == "nothing is computed"


def test_a_cpu_has_no_launches_but_steps():
    tiny = run(*(layer(f"n{i}", 0.008, CPU, gflop=1e-6) for i in range(200)), device="cpu", wall_ms=1.7)
    found = diagnose_run(tiny)
    assert found.kind is Kind.LAUNCH
    assert figures(found)["least that a step takes"] == 5.0
    assert diagnose_run(run(layer("a", 20.0, CPU, gflop=1.5), device="cpu", wall_ms=99)).kind is Kind.COMPUTE


def test_findings_on_the_slowest_layers():
    many = [layer(f"n{i}", 1.0 + i, mb=2000 * i) for i in range(8)]
    found = diagnose_layers(run(*many, layer("small", 0.1, gflop=50)), most=3)
    assert [f.of for f in found] == ["n7", "n6", "n5"]
    assert figures(found[0]) == {
        "time": 8.0,
        "of the layers' time": pytest.approx(100 * 8 / 36.1),
        "reached": 1750.0,
        "least time under the ceiling": 3.5,
    }
    assert found[0].text == "it is nearest to the ceiling of the bandwidth of memory, and reaches 44 % of it"
    assert [f.of for f in diagnose_layers(run(layer("a", 99.0, mb=1000), layer("b", 1.0, mb=10)))] == ["a"]  # 1 % is nothing
    assert diagnose_layers(run(layer("a", 1.0))) == []


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure("steps", 300), "steps 300"),
        (Figure("inputs", 40_000_000, "bytes"), "inputs 40 000 000 bytes"),
        (Figure("time", 0.12345, "ms"), "time 0.123 ms"),
        (Figure("time", 12345.6, "ms"), "time 12346 ms"),
        (Figure("of it", 0.0, "%"), "of it 0 %"),
    ],
)
def test_figures_as_they_are_shown(figure, text):
    assert str(figure) == text
