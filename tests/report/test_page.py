"""Reports: every section from its keys, nothing that comes from documents is taken for markup, nothing is asked of a network."""

import base64
import hashlib
import json
import re
from importlib import resources

import pytest

from miniinfer_cli.errors import UsageError
from miniinfer_cli.report.page import page_of, page_of_two
from tests.report.made import EVIL, Page, comparison, identity, node, profile, sweep

OWN_NBYTES = 200_000  # at most, beside what is drawn
ROOM = resources.files("miniinfer_cli.report")
ALL = [
    *("summary", "latency", "diagnosis", "account", "timeline", "operations", "roofline", "nodes-section", "graph-section"),
    "environment",
]


@pytest.mark.parametrize(
    "document",
    [profile(), profile(1), sweep(), identity("run"), comparison()],
    ids=["profile", "one node", "sweep", "bare", "comparison"],
)
def test_a_page_is_whole_and_asks_for_nothing(document):
    page = page_of(document)
    read = Page(page)
    assert page.startswith("<!doctype html>\n")
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    # Links lead within the page, and to what is there.
    links = [a["href"] for tag, a in read.elements if tag in ("a", "link")]
    assert [h for h in links if h != "data:," and h.removeprefix("#") not in ids] == []
    assert [a for _, a in read.elements if {"src", "srcset", "action", "onclick", "onload", "onerror"} & a.keys()] == []
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", page)
    (policy,) = [a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "connect-src" not in policy
    scripts = [text for text in read.text_of("script") if not text.startswith("{")]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert allowed == [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert len(scripts) == 2


def test_a_page_without_data_is_small():
    assert len(page_of(identity("run")).encode()) <= OWN_NBYTES


def test_every_section_is_there_and_leads_to_its_place():
    read = Page(page_of(profile()))
    assert read.sections == ALL
    assert [a["href"] for a in read.all("a")][: len(ALL)] == [f"#{key}" for key in ALL]
    assert Page(page_of(sweep())).sections == ["sweep", "environment"]


@pytest.mark.parametrize(
    ("keys", "sections"),
    [
        (["latency_histogram"], {"latency"}),
        (["timeline"], {"timeline"}),
        (["findings", "tried"], {"diagnosis"}),
        (["account", "conditions"], {"account"}),
        (["nodes"], {"operations", "roofline", "nodes-section", "graph-section"}),
        (["ceilings", "weights_bytes", "hints", "gpu_state", "end_to_end_latency_ms"], set()),
    ],
)
def test_a_section_whose_keys_are_not_there_is_left_out(keys, sections):
    whole = profile()
    for document in ({k: v for k, v in whole.items() if k not in keys}, {**whole, **dict.fromkeys(keys)}):
        assert Page(page_of(document)).sections == [s for s in ALL if s not in sections]


def test_what_is_known_of_no_node_makes_no_picture():
    blind = profile(nodes=3)
    for one in blind["nodes"]:
        for key in ("reads", "flops", "roofline", "rate", "gap_ms", "chosen_by", "origins"):
            del one[key]
    read = Page(page_of(blind))
    assert not {"roofline", "graph-section"} & set(read.sections)
    assert "bound by" not in read.text_of("button")
    assert "bound by" in Page(page_of(profile())).text_of("button")


def test_figures_stand_in_the_page():
    read = Page(page_of(profile()))
    cards = list(zip(read.text_of("b"), [t for t in read.text_of("span") if t[0].islower() or t.startswith("GPU")], strict=False))
    assert cards[:4] == [
        ("20\N{NO-BREAK SPACE}000", "samples per second"),
        ("2\N{NO-BREAK SPACE}500", "inferences per second"),
        ("0.35 ms", "median latency"),
        ("0.8 ms", "p99 latency"),
    ]
    assert "launch-bound: enqueuing takes 0.3 ms" in read.text_of("li")
    assert "NVIDIA H200 (cuda:0) · batch 8 · 2026-11-30T04:00:00+00:00" in read.text_of("p")
    assert "matrix f16 788\N{NO-BREAK SPACE}000 GFLOP/s" in read.text_of("text")
    assert "4\N{NO-BREAK SPACE}300 GB/s" in read.text_of("text")


def test_a_diagnosis_has_its_proof_and_its_advice():
    read = Page(page_of(profile()))
    told = [t for tag, t in read.texts if tag in ("span", "b", "a", "p", "li") and t]
    at = told.index("what bounds run") if "what bounds run" in told else told.index(": what bounds run")
    assert told[at - 2 : at + 11] == [
        *("memory", "the run", ": what bounds run", "reached 1\N{NO-BREAK SPACE}234 GB/s · of layers 3"),
        *("two streams", ": run --streams 2", " saves 0.1 ms of 0.4 ms (25 %, measured)", " a note"),
        *("two streams", ": run --streams 2", " a note", "memory", "layer1"),
    ]
    assert [a["href"] for a in read.all("a")].count("#n1") == 3  # the finding, the dot, the box
    tried = ["2 streams: 25.0 % less time", "batch 64: 5.0 % more time", "batch 128: no time left"]
    assert [t for t in read.text_of("li") if t in tried] == tried
    assert "foreign load: 0.5 of 4 processors" in read.text_of("li")


def test_an_account_adds_up_to_the_whole():
    read = Page(page_of(profile()))
    cells = read.text_of("td")
    at = cells.index("0.0200 ms")
    assert cells[at : at + 14 : 2] == [f"{t:.4f} ms" for t in (0.02, 0.03, 0.3, 0.02, -0.01, 0.02, 0.02)]
    assert cells[at + 1 : at + 14 : 2] == ["5.0 %", "7.5 %", "75.0 %", "5.0 %", "-2.5 %", "5.0 %", "5.0 %"]


def test_each_node_has_a_row_a_dot_and_a_box():
    read = Page(page_of(profile(nodes=5)))
    rows = [a["id"] for a in read.all("tr") if "data-op" in a]
    assert rows == [f"n{n}" for n in range(5)]
    assert sorted(a["href"] for a in read.all("a") if a["href"].startswith("#n") and a["href"][2:].isdigit()) == sorted(
        [*(2 * [f"#{row}" for row in rows]), "#n1"]  # a dot, a box, and a finding of one
    )
    assert len(read.all("circle")) == 5


def test_a_timeline_has_its_tracks_and_the_nodes_of_one_inference():
    whole = profile(nodes=4)
    read = Page(page_of(whole))
    tracks = ("host", "H2D", "compute", "D2H", "nodes")  # compute is also the name of bars
    assert tuple(dict.fromkeys(t for t in read.text_of("text") if t in tracks)) == tracks
    told = [t for t in read.text_of("title") if ", inference " in t]
    assert told[0] == "enqueue: 20 µs, inference 0" and told[-1] == "layer3: 8 µs, inference 10"
    assert len(told) == 3 * 5 + 4
    whole["timeline"]["spans"] = [s for s in whole["timeline"]["spans"] if s["track"] == "nodes"]
    assert "Node by node" in Page(page_of(whole)).text_of("h3")


def test_data_for_the_script():
    (block,) = [t for t in Page(page_of(profile())).text_of("script") if t.startswith("{")]
    assert json.loads(block) == {
        "histogram": {"from": 0.3, "width": 0.05, "counts": [5, 60, 20, 10, 4, 0, 1], "marks": {"median": 0.35, "p99": 0.8}}
    }
    (block,) = [t for t in Page(page_of(sweep())).text_of("script") if t.startswith("{")]
    drawn = json.loads(block)["sweep"]
    assert (drawn["x"], drawn["axis"], drawn["names"]) == ([1, 8, 64], "batch", ["streams 1", "streams 2"])
    assert drawn["p99"] == [[0.2, 1.6, 12.8], [0.2, None, None]]


def test_a_sweep_names_what_was_chosen_and_what_was_not_measured():
    read = Page(page_of(sweep()))
    assert [t for t in read.text_of("b") if "batch" in t] == ["streams 1, batch 64", "streams 1, batch 8"]
    assert read.text_of("summary") == ["2 settings were not measured"]
    assert "streams 2, batch 8: failed: no memory for 'x'" in read.text_of("li")


def evil(value):
    match value:
        case str():
            return f"{value}{EVIL}"
        case list():
            return [evil(v) for v in value]
        case dict():
            return {(k if k in KEPT else f"{k}"): (v if k in KEPT else evil(v)) for k, v in value.items()}
    return value


KEPT = ("kind", "track")


def test_names_out_of_files_are_text_wherever_they_stand():
    for document in (profile(), sweep()):
        document["versions"][EVIL] = "1"
        page, plain = page_of(evil(document)), page_of(document)
        read = Page(page)
        assert {tag for tag, _ in read.elements} == {tag for tag, _ in Page(plain).elements}
        assert read.all("img") == [] and not any("onerror" in a for _, a in read.elements)
        assert "\x1b" not in page and "\\x1b" in page
        assert page.count("<script") == plain.count("<script") == page.count("</script")


def test_two_results_stand_side_by_side():
    one, other = profile(4), profile(4, device="cuda:1")
    other["nodes"][1] |= {"node": "fused", "origins": ["layer1", "layer2"], "median_ms": 0.05}
    del other["nodes"][2]
    other["throughput_qps"] = 5000.0
    page = page_of_two(one, other)
    read = Page(page)
    assert read.sections == ["figures", "pairs-section", "environment"]
    assert read.text_of("td")[:3] == ["2500", "5000", "2.000"]
    cells = read.text_of("td")
    at = cells.index("layer1, layer2")
    assert cells[at : at + 6] == ["layer1, layer2", "gemm 64x64", "0.0500", "0.0500", "+0.0000", "gemm 64x64"]
    assert "fused" in cells[at + 6 :]
    assert len(page.encode()) < OWN_NBYTES
    alike = Page(page_of_two(one, one))
    assert alike.sections == ["figures", "pairs-section"]
    assert "1.000" in alike.text_of("td") and not any(a.get("class") in ("num faster", "num slower") for a in alike.all("td"))
    assert Page(page_of_two(one, sweep())).sections == ["figures", "environment"]


def test_what_is_faster_and_slower_is_marked():
    one, other = profile(2), profile(2)
    other["nodes"][0]["median_ms"] *= 0.5
    other["nodes"][1]["median_ms"] *= 2
    other["latency_ms"] = {k: 0.9 * v for k, v in other["latency_ms"].items()}
    other["throughput_qps"] *= 0.9
    marked = [a["class"] for a in Page(page_of_two(one, other)).all("td") if a.get("class", "").startswith("num ")]
    assert [m.split()[1] for m in marked] == ["slower", "faster", "faster", "faster", "slower"]


def test_names_of_two_results_are_text():
    read = Page(page_of_two(evil(profile(3)), evil(sweep())))
    assert read.all("img") == [] and len(read.all("script")) == 3


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([], "the document: expected an object, got []"),
        (profile(nodes=1) | {"nodes": [node(0, flops=10**400)]}, "nodes[0].flops: expected an integer of 0 or more, got 1000"),
        (profile() | {"throughput_qps": 10**400}, "throughput_qps: expected a number up to 1e+30, got 1000"),
        ({"kind": "times"}, "is of kind 'times', of which no report can be made"),
        ({}, "holds no results of miniinfer"),
        (
            profile(nodes=1) | {"nodes": [node(0, median_ms="1")]},
            "nodes[0].median_ms: expected a number up to 1e+30, got '1'",
        ),
        (profile(nodes=1) | {"nodes": [node(0, flops=-1)]}, "nodes[0].flops: expected an integer of 0 or more, got -1"),
        (profile(nodes=1) | {"nodes": [node(0, reads=["a"])]}, "nodes[0].reads: expected a list of integers of 0 or more"),
        (profile(nodes=1) | {"nodes": {}}, "nodes: expected a list, got {}"),
        (profile() | {"plan": 3}, "plan: expected a string, got 3"),
        (profile() | {"hints": [1]}, "hints: expected a list of strings, got [1]"),
        (profile() | {"latency_ms": {"min": -1.0}}, "latency_ms.min: expected 0 or more, got -1.0"),
        (profile() | {"latency_ms": {"min": float("inf")}}, "latency_ms.min: expected a number up to 1e+30, got inf"),
        (profile() | {"throughput_qps": True}, "throughput_qps: expected a number up to 1e+30, got True"),
        (profile() | {"device_facts": "x" * 99}, f"device_facts: expected an object, got '{'x' * 56}..."),
    ],
)
def test_what_is_no_result_is_refused_with_its_place(broken, message):
    with pytest.raises(UsageError) as refused:
        page_of(broken)
    assert str(refused.value).startswith(message)


def test_what_reads_later_nodes_or_none_is_passed_over():
    loop = profile(nodes=3)
    loop["nodes"][0]["reads"] = [0, 2, 99]
    loop["timeline"]["spans"][0]["node"] = 99
    assert "graph-section" in Page(page_of(loop)).sections


def test_numbers_of_any_size_are_drawn():
    huge = profile(nodes=2)
    huge["nodes"][0] |= {"flops": 10**30, "bytes": 1, "median_ms": 1e-29}
    huge["nodes"][1] |= {"flops": 1, "bytes": 10**18, "median_ms": 0.0}
    huge["timeline"]["spans"] = [s | {"length_us": 0.0, "begin_us": 0.0} for s in huge["timeline"]["spans"]]
    assert Page(page_of(huge)).sections == ALL
    for times in (1e30, 1e-300):
        extreme = profile(nodes=2)
        for one in (*extreme["nodes"], *extreme["timeline"]["spans"], extreme["latency_ms"], extreme["latency_histogram"]):
            one |= {k: times for k, v in one.items() if isinstance(v, float)}
        assert set(Page(page_of(extreme)).sections) >= {*ALL} - {"latency", "roofline"}


def test_a_graph_too_large_to_look_at_is_not_drawn(monkeypatch):
    monkeypatch.setattr("miniinfer_cli.report.graph_chart.MOST_NODES", 10)
    assert len(Page(page_of(profile(nodes=10))).all("rect")) > 10
    read = Page(page_of(profile(nodes=11)))
    assert "A graph of 11 nodes is too large to be drawn." in read.text_of("p")
    assert len([a for a in read.all("a") if a["href"] == "#n10"]) == 1  # the dot


def test_what_others_made_is_unchanged_and_has_its_licence():
    told = (ROOM / "third_party" / "uplot" / "README.md").read_text()
    found = dict(re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", told, re.M))
    files = {f.name: f.read_bytes() for f in (ROOM / "third_party" / "uplot").iterdir() if f.name != "README.md"}
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert b"The MIT License" in files["LICENSE"]
    assert [f.name for f in (ROOM / "third_party").iterdir()] == ["uplot"]


def test_no_asset_ends_its_element():
    for path in ("third_party/uplot/uPlot.iife.min.js", "assets/page.js", "assets/page.css", "third_party/uplot/uPlot.min.css"):
        content = (ROOM / path).read_text()
        assert "</" not in content and "<!--" not in content and "\r" not in content


COMPARED = ["times", "assertions", "outputs", "layers", "pairs-section", "environment"]


def test_a_comparison_shows_verdicts_pairs_outputs_and_nodes_side_by_side():
    read = Page(page_of(comparison()))
    assert read.sections == COMPARED
    assert [t for t in read.text_of("b") if t.startswith("B is ")] == ["B is slower", "B is faster"]
    assert "+10.00 % of A's time (+9.00 to +11.00 %, p = 0.0010; spread 1.20 %)" in read.text_of("span")
    kinds = [a["class"] for a in read.all("circle")]
    assert [kinds.count(k) for k in ("side-a", "side-b", "pair")] == [20, 20, 20]  # ten pairs in each of two cases
    assert len([t for t in read.text_of("title") if t.startswith("pair 10: ")]) == 2
    assert "12 pairs of workers in 20.5 s; other work disturbed 2 of them, which do not count" in read.text_of("li")
    assert "foreign load: 0.5 of 4 processors" in read.text_of("li")
    assert [t for t in read.text_of("td") if t in ("ok", "differs by 1.0e-02", "failed")] == [
        *("failed", "ok", "differs by 1.0e-02", "ok", "differs by 1.0e-02", "ok", "differs by 1.0e-02"),
    ]
    assert "2 values that both sides have (x 8x3); the first that diverges is h2." in read.text_of("p")
    assert [a["class"] for a in read.all("tr") if "class" in a] == ["chosen"]
    # One node of B stands beside the two of A that it computes.
    cells = read.text_of("td")
    at = cells.index("layer2, layer3", cells.index("layer2, layer3") + 1)  # the first is a value's nodes
    assert cells[at - 1 : at + 7] == ["2", "layer2, layer3", "gemm 64x64", "0.0700", "0.0300", "-0.0400", "gemm 64x64", "layer2"]
    assert "Plan: digest" in read.text_of("th")


@pytest.mark.parametrize(
    ("keys", "sections"),
    [
        (["per_layer"], ["layers"]),
        (["assertions", "race"], ["assertions"]),
        (["nodes_label", "settings"], []),
    ],
)
def test_a_section_of_a_comparison_whose_keys_are_not_there_is_left_out(keys, sections):
    whole = comparison()
    left = {k: v for k, v in whole.items() if k not in keys}
    assert Page(page_of(left)).sections == [s for s in COMPARED if s not in sections]


def test_a_comparison_of_which_little_is_known():
    whole = comparison()
    for case in whole["cases"]:
        case["times"] = None
        del case["outputs"], case["agree"]
    for side in "ab":
        whole[side] = {"file": "x", "is": "saved outputs"}
    assert Page(page_of(whole)).sections == ["assertions", "layers", "environment"]
    unsure = {"verdict": "cannot tell", "change": None, "low": None, "high": None, "p": None, "spread": None, "margin": 0.02}
    whole["cases"][0]["times"] = {**unsure, "pairs": 0, "pairs_needed": None, "why": "too few", "a": None, "b": None}
    read = Page(page_of(whole))
    assert ("times" in read.sections, "cannot tell" in read.text_of("b"), "too few" in read.text_of("p")) == (True, True, True)
    assert read.all("circle") == []


def test_every_pair_has_the_same_time():
    whole = comparison()
    for side in "ab":
        whole["cases"][0]["times"][side]["workers_ms"] = [2.0] * 10
    whole["cases"][0]["times"] |= {"change": 0.0, "low": 0.0, "high": 0.0, "margin": 0.0}
    assert "nan" not in page_of(whole).lower().split("<main")[1].split("<script")[0]


def test_many_pairs_are_drawn_in_part():
    whole = comparison()
    whole["cases"][0]["times"]["a"]["workers_ms"] = whole["cases"][0]["times"]["b"]["workers_ms"] = [2.0, 2.1] * 2000
    assert 200 <= sum(a["class"] == "pair" for a in Page(page_of(whole)).all("circle")) <= 410


def test_names_of_a_comparison_are_text():
    read = Page(page_of(evil(comparison())))
    assert {name for name, _ in read.elements} == {name for name, _ in Page(page_of(comparison())).elements}
    assert read.all("img") == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"a": None}, "a: the side is not there"),
        ({"cases": []}, "cases: there are none"),
        ({"b": {"file": "x", "nodes": [{"median_ms": -1}]}}, "b.nodes[0].median_ms: expected 0 or more, got -1"),
        ({"cases": [{"times": {"change": "fast"}}]}, "cases[0].times.change: expected a number up to 1e+30, got 'fast'"),
        ({"cases": [{"agree": 1}]}, "cases[0].agree: expected true or false, got 1"),
        ({"cases": [{"times": {"a": {"time_ms": 1, "workers_ms": [None]}}}]}, "cases[0].times.a.workers_ms: expected a list of"),
    ],
)
def test_a_comparison_of_another_make_is_refused_with_the_place(changed, told):
    with pytest.raises(UsageError) as caught:
        page_of({**comparison(), **changed})
    assert caught.value.message.startswith(told)


def test_two_comparisons_are_not_put_side_by_side():
    with pytest.raises(UsageError, match="is of kind 'compare', of which no report can be made"):
        page_of_two(comparison(), profile())
