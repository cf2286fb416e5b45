"""Made documents of results, as docs/results.md describes them, and what reads a page."""

import random
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "input", "br"}
EVIL = "</script><img src=x onerror=alert(1)>&\"'\x1b"


def identity(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": kind,
        "date": "2026-11-30T04:00:00+00:00",
        "plan": "models/net.plan",
        "plan_digest": "0" * 32,
        "plan_producer": "miniinfer 0.1.0",
        "weights_bytes": 102_400,
        "device": "cuda:0",
        "device_facts": {"name": "NVIDIA H200", "arch": "sm_90", "multiprocessors": 132},
        "host": {"name": "here", "processor": "a processor", "cores": 4, "environment": {}},
        "versions": {"miniinfer": "0.1.0", "python": "3.12", "numpy": "2.4"},
        "inputs": [{"name": "x", "type": "f16[n,3]", "shape": [8, 3], "source": "random"}],
        "outputs": [{"name": "y", "type": "f16[n,2]", "shape": ["n", 2]}],
        "batch": 8,
        "settings": {"streams": 1, "tactics": {}, "threads": None},
        "notes": [],
        **more,
    }


def distribution(scale: float = 1.0) -> dict[str, float]:
    return {k: scale * v for k, v in {"min": 0.3, "max": 0.9, "mean": 0.4, "median": 0.35, "p90": 0.5, "p99": 0.8}.items()}


def node(number: int, **more: Any) -> dict[str, Any]:
    return {
        "node": f"layer{number}",
        "origins": [f"layer{number}"],
        "operation": ("miniinfer.FusedConv", "MatMul", "Reshape")[number % 3],
        "reads": [number - 1] if number else [],
        "tactic": "gemm 64x64",
        "chosen_by": "heuristic",
        "join": None,
        "flops": 2_000_000 * (number + 1),
        "bytes": 40_000,
        "median_ms": 0.01 * (1 + number % 7),
        "min_ms": 0.01,
        "max_ms": 0.2,
        "gap_ms": 0.001,
        "rate": "matrix f16",
        "roofline": {"compute_ms": 0.001, "memory_ms": 0.005, "bound_by": "memory", "fraction": 0.25},
        **more,
    }


def finding(of: str, **more: Any) -> dict[str, Any]:
    evidence = [{"what": "reached", "value": 1234.5, "unit": "GB/s"}, {"what": "of layers", "value": 3, "unit": ""}]
    return {"kind": "memory", "of": of, "text": f"what bounds {of}", "evidence": evidence, "advice": [], **more}


def advice(**more: Any) -> dict[str, Any]:
    gain = {"gain_ms": 0.1, "before_ms": 0.4, "after_ms": 0.3, "basis": "measured", "of": "throughput"}
    return {"name": "2 streams", "what": "two streams", "how": "run --streams 2", "note": "a note", **gain, **more}


def profile(nodes: int = 6, **more: Any) -> dict[str, Any]:
    """A profile on a GPU with every key that a report shows."""
    drawn = random.Random(nodes)
    made = [node(n) for n in range(nodes)]
    for n in range(3, nodes):
        made[n]["reads"] = sorted({n - 1, drawn.randrange(max(0, n - 9), n)})
    spans = [
        {"stream": 0, "track": track, "name": name, "inference": n, "begin_us": 400.0 * n + at, "length_us": took, "node": None}
        for n in range(3)
        for track, name, at, took in (
            ("host", "enqueue", 0.0, 20.0), ("H2D", "copy inputs", 10.0, 50.0), ("compute", "compute", 60.0, 300.0),
            ("D2H", "copy outputs", 360.0, 30.0), ("host", "wait", 30.0, 370.0),
        )
    ]  # fmt: skip
    spans += [
        {
            "stream": 0,
            "track": "nodes",
            "name": f"layer{n}",
            "inference": 10,
            "begin_us": 2e3 + 9 * n,
            "length_us": 8.0,
            "node": n,
        }
        for n in range(nodes)
    ]
    return identity(
        "profile",
        iterations=1000,
        streams=1,
        throughput_qps=2500.0,
        samples_per_second=20_000.0,
        latency_ms=distribution(),
        end_to_end_latency_ms=distribution(1.1),
        gpu_compute_time_ms=distribution(0.9),
        total_host_walltime_s=3.0,
        total_compute_time_s=2.9,
        hints=["launch-bound: enqueuing takes 0.3 ms"],
        gpu_state={"sm_clock_mhz": 1980},
        arena_bytes=1 << 20,
        activation_bytes=2 << 20,
        nodes_sum_ms=sum(n["median_ms"] for n in made),
        nodes=made,
        latency_histogram={"from_ms": 0.3, "width_ms": 0.05, "counts": [5, 60, 20, 10, 4, 0, 1], "beyond": 2},
        timeline={"clock_error_us": 4.2, "spans": spans},
        account={
            "timed_by": "events within a replay",
            "inferences": 100,
            "whole_ms": 0.4,
            "launch_ms": 0.02,
            "copies_in_ms": 0.03,
            "layers_ms": 0.3,
            "gaps_ms": 0.02,
            "unexplained_ms": -0.01,
            "copies_out_ms": 0.02,
            "synchronization_ms": 0.02,
        },
        findings=[finding("layer1"), finding("run", advice=[advice(), advice(gain_ms=None, before_ms=None, after_ms=None)])],
        tried=[
            {"name": "2 streams", "gain": 0.25, "reason": None, "advised": True},
            {"name": "batch 64", "gain": -0.05, "reason": None, "advised": False},
            {"name": "batch 128", "gain": None, "reason": "no time left", "advised": False},
        ],
        conditions={"cores": 4, "foreign_cores": 0.5, "flags": ["foreign load: 0.5 of 4 processors"]},
        ceilings={"device": "NVIDIA H200", "tflops": {"matrix f16": 788.0, "vector f32": 60.0}, "memory_gbps": 4300.0},
        **more,
    )


def sweep() -> dict[str, Any]:
    """A sweep of six settings, of which one failed and one was left out."""
    points = []
    for streams in (1, 2):
        for batch in (1, 8, 64):
            place = {"streams": streams, "batch": batch}
            if streams == 2 and batch > 1:
                status = {"status": "failed" if batch == 8 else "left out", "reason": "no memory for 'x'"}
                points.append(
                    {**place, **status, "throughput_qps": None, "samples_per_second": None, "p50_ms": None, "p99_ms": None}
                )
            else:
                rates = {"throughput_qps": 100.0 / batch**0.5, "samples_per_second": 100.0 * batch**0.5 * streams}
                points.append(
                    {**place, "status": "measured", "reason": None, **rates, "p50_ms": batch * 0.1, "p99_ms": batch * 0.2}
                )
    best, knee = {"streams": 1, "batch": 64}, {"streams": 1, "batch": 8}
    return identity(
        "sweep", interrupted=False, points=points, best=best, best_within_budget=None, knee=knee, knee_gain=0.1, gpu_state={}
    )


def difference(name: str, *, ok: bool = True, **more: Any) -> dict[str, Any]:
    figures = {"max_abs_error": 1e-3, "relative_error": 1e-4, "cosine": 0.9999, "argmax_agreement": 1.0, "tolerance": 5e-3}
    return {"name": name, **figures, "beyond_tolerance": None, "ok": ok, "reason": "" if ok else "by 1.0e-02", **more}


def compared_times(change: float = 0.1, pairs: int = 10, **more: Any) -> dict[str, Any]:
    drawn = random.Random(pairs)
    a = [2.0 * drawn.gauss(1, 0.01) for _ in range(pairs)]
    b = [t * (1 + change) * drawn.gauss(1, 0.01) for t in a]
    sides = {
        side: {"time_ms": sorted(ms)[pairs // 2], "workers_ms": ms, "latency_medians_ms": ms, "latency_ms": distribution(2.0)}
        for side, ms in (("a", a), ("b", b))
    }
    verdict = {"verdict": "slower", "change": change, "low": change - 0.01, "high": change + 0.01, "p": 0.001, "spread": 0.012}
    return {**verdict, "margin": 0.02, "pairs": pairs, "pairs_needed": 9, "why": "", **sides, **more}


def comparison(nodes: int = 6, **more: Any) -> dict[str, Any]:
    """A comparison of two plans with every key that a report shows: times and outputs of two cases, values, nodes."""
    kept = ("plan_digest", "plan_producer", "weights_bytes", "device", "device_facts", "host", "versions", "outputs", "notes")
    one, other = profile(nodes), profile(nodes + 1, plan_digest="1" * 32)
    for n in range(nodes + 1):  # B computes two of A's nodes in one
        other["nodes"][n]["origins"] = [f"layer{n}"] if n != 2 else ["layer2", "layer3"]
    del other["nodes"][3]
    sides = {
        key: {"file": f"{key}.plan", "is": "plan", **{k: document[k] for k in kept}, "nodes": document["nodes"]}
        for key, document in (("a", one), ("b", other))
    }
    inputs = one["inputs"]
    outputs = [difference("y"), difference("z", ok=False)]
    cases = [
        {"label": label, "inputs": inputs, "batch": 8, "outputs": outputs, "left_out": {"r": ["Dropout"]}, "notes": ["a note"]}
        | {"agree": False, "times": compared_times(change, verdict=verdict)}
        for label, change, verdict in (("x 8x3", 0.1, "slower"), ("x 1x3", -0.2, "faster"))
    ]
    values = [difference("h1", nodes=["layer1"]), difference("h2", ok=False, nodes=["layer2", "layer3"])]
    return {
        "schema_version": 1,
        "kind": "compare",
        "date": "2026-11-30T04:00:00+00:00",
        **sides,
        "cases": cases,
        "per_layer": {"label": "x 8x3", "shared_values": 2, "first": values[1], "values": values},
        "race": {
            "seconds": 20.5, "pairs": 12, "disturbed_pairs": 2, "ended_early": True, "sm_clock_mhz": {},
            "conditions": {"cores": 4, "flags": ["foreign load: 0.5 of 4 processors"]},
        },
        "assertions": [{"assertion": "regression<=5%", "outcome": "failed", "measured": 0.1, "why": "it is +10 %"}],
        "settings": {"streams": 1, "duration_s": 30.0, "threads": None},
        "nodes_label": "x 8x3",
        **more,
    }  # fmt: skip


class Page(HTMLParser):
    """A page, read: elements with their attributes, texts by the element around them. They must nest."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), "an attribute stands twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def text_of(self, tag: str) -> list[str]:
        """The texts right within elements of this name."""
        return [text for name, text in self.texts if name == tag]

    @property
    def sections(self) -> list[str | None]:
        return [a.get("id") for a in self.all("section")]
