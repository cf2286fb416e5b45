"""Findings with their advice: what was measured to help, what is in the way, and what the graph says of single layers."""

from miniinfer_cli.diagnosis.findings import Advice, Figure, Gain, Kind, Remark
from miniinfer_cli.diagnosis.telling import findings_of
from tests.diagnosis.made import CPU, layer, run


def remark(rule: str, *nodes: str, on="any") -> Remark:
    return Remark(
        rule, nodes, f"{rule} of {', '.join(nodes)}", (Figure("nodes", len(nodes)),), Advice(f"mend {nodes[0]}", "so"), on
    )


def helped(name: str, saved: float) -> Advice:
    return Advice(name, "so", Gain(10.0, 10.0 - saved, "measured"), name)


def test_what_helps_most_stands_in_front():
    found = findings_of(run(layer("a", 1.0, mb=3000)), [], [helped("little", 2.0), helped("much", 5.0)])
    assert [a.name for a in found[0].advice] == ["much", "little"]
    assert [f.of for f in found] == ["run", "a"]


def test_host_steps_are_told_though_nobody_knows_the_gain():
    (whole, _) = findings_of(run(layer("a", 1.0, tactic="host", kind="Unique")), [], [])
    assert whole.kind is Kind.HOST_STEP
    assert [a.gain for a in whole.advice] == [None]
    assert findings_of(run(layer("a", 1.0, mb=3000)), [], [])[0].advice == ()


def test_blocked_fusions_that_take_much_of_the_time():
    layers = [layer("p", 6.0, gflop=5000), *(layer(f"r{i}", 1.0, mb=3000) for i in range(4))]
    remarks = [remark("fusion blocked", f"r{i}") for i in range(4)] + [remark("layout copy", "p")]
    whole = findings_of(run(*layers), remarks, [])[0]
    assert whole.evidence[-1] == Figure("in layers whose fusion is blocked", 40.0, "%")
    assert [(a.what, a.note) for a in whole.advice] == [(f"mend r{i}", f"fusion blocked of r{i}") for i in range(3)]
    little = findings_of(run(*layers), remarks[:1], [])[0]  # a tenth of the time
    assert little.advice == () and little.evidence[-1].what != "in layers whose fusion is blocked"


def test_the_advice_of_a_layer_is_of_the_device_at_hand():
    remarks = [remark("odd channels", "a", on="gpu"), remark("layout copy", "a", "b"), remark("padding waste", "c")]
    of_a = findings_of(run(layer("a", 1.0, mb=3000)), remarks, [])[1]
    assert [a.what for a in of_a.advice] == ["mend a", "mend a"]
    on_cpu = findings_of(run(layer("a", 9.0, CPU, mb=30), device="cpu"), remarks, [])[1]
    assert len(on_cpu.advice) == 1
