"""``profile --report`` and ``miniinfer report``."""

import json
import os
from unittest import mock

import pytest

from miniinfer_cli.devices import opening
from tests.emulation.engine import load_emulated
from tests.report.made import Page, profile

QUICK = ("--iterations", 3, "--warmup", 0, "--duration", 0)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_profile_writes_a_report_of_what_it_measured(miniinfer, plan, tmp_path, device):
    page, result, again = tmp_path / "page.html", tmp_path / "result.json", tmp_path / "again.html"
    with mock.patch.object(opening, "load_model", load_emulated()) if device != "cpu" else mock.MagicMock():
        outcome = miniinfer(
            "profile", plan, *QUICK, "--no-ceilings", "--no-diagnosis", "--device", device, "--report", page, "--json", result
        )
    assert (outcome.code, outcome.err) == (0, "")
    read = Page(page.read_text("utf-8"))
    there = {
        "summary",
        "latency",
        "account",
        "timeline",
        "operations",
        "roofline",
        "nodes-section",
        "graph-section",
        "environment",
    }
    assert set(read.sections) == there
    nodes = json.loads(result.read_text())["nodes"]
    assert [a["id"] for a in read.all("tr") if "data-op" in a] == [f"n{n}" for n in range(len(nodes))]
    assert miniinfer("report", result, "-o", again).code == 0
    assert again.read_bytes() == page.read_bytes()


def test_a_sweep_and_a_load_have_reports_too(miniinfer, plan, tmp_path):
    page = tmp_path / "page.html"
    assert miniinfer("profile", plan, *QUICK, "--streams", "1,2", "--report", page).code == 0
    assert "sweep" in Page(page.read_text("utf-8")).sections
    assert miniinfer("profile", plan, *QUICK, "--scenario", "single-stream", "--report", page).code == 0
    assert "Queueing" in Page(page.read_text("utf-8")).text_of("th")


def test_a_result_becomes_a_page_beside_it(miniinfer, tmp_path):
    result = tmp_path / "run.json"
    result.write_text(json.dumps(profile(), ensure_ascii=False))
    outcome = miniinfer("report", result)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert (tmp_path / "run.html").read_text("utf-8").startswith("<!doctype html>")


def test_two_results_become_one_page_and_the_wrong_one_is_named(miniinfer, tmp_path):
    one, other, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "page.html"
    one.write_text(json.dumps(profile(3)))
    other.write_text(json.dumps(profile(4)))
    assert miniinfer("report", one, other, "-o", page).code == 0
    assert "pairs-section" in Page(page.read_text("utf-8")).sections
    other.write_text("{}")
    outcome = miniinfer("report", one, other, "-o", page)
    assert (outcome.code, f"{other}: holds no results" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON: Expecting property name"),
        (b"\xff\xfe\x00", "is no JSON: "),
        (b"[" * 100_000, "is nested more deeply than any result"),
        (b'{"kind": "run", "settings": ' + b'{"a": ' * 800 + b"1" + b"}" * 801, "is nested more deeply than any result"),
        (b"[1]", "the document: expected an object, got [1]"),
        (b'{"kind": "times"}', "is of kind 'times', of which no report can be made"),
        (
            b'{"kind": "profile", "nodes": [{"median_ms": "1"}]}',
            "nodes[0].median_ms: expected a number up to 1e+30, got '1'",
        ),
    ],
)
def test_what_is_no_result_is_one_line_with_the_file(miniinfer, tmp_path, content, message):
    result = tmp_path / "result.json"
    result.write_bytes(content)
    outcome = miniinfer("report", result)
    assert outcome.code == 2
    assert outcome.err.startswith(f"miniinfer: error: {result}: {message}"), outcome.err
    assert "hint: give a " in outcome.err and len(outcome.err.splitlines()) == 2
    assert not (tmp_path / "result.html").exists()


def test_the_files_are_looked_at_first(miniinfer, plan, tmp_path):
    absent = miniinfer("report", tmp_path / "absent.json")
    assert (absent.code, "cannot be read: No such file or directory" in absent.err) == (2, True)
    os.mkfifo(tmp_path / "pipe")
    pipe = miniinfer("report", tmp_path / "pipe")
    assert (pipe.code, "nobody opened this pipe for writing" in pipe.err) == (2, True)
    same = tmp_path / "page.html"
    same.write_text("{}")
    outcome = miniinfer("report", same)
    assert (outcome.code, "--output would overwrite the file that is read" in outcome.err) == (2, True)
    outcome = miniinfer("profile", plan, *QUICK, "--no-ceilings", "--no-diagnosis", "--report", "-")
    assert (outcome.code, "--report -: only JSON goes to standard output" in outcome.err) == (2, True)
    outcome = miniinfer("profile", plan, *QUICK, "--no-ceilings", "--no-diagnosis", "--report", tmp_path / "no" / "page.html")
    assert (outcome.code, "there is no folder" in outcome.err) == (2, True)
