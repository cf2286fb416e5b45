"""What is read of compute-sanitizer's text: complaints, those that are excused, and whether that is all."""

import re

import pytest

from tests.gpu.sanitizer_report import EXCUSES, TOOLS, read_report

READ = """\
========= Uninitialized __global__ memory read of size 4 bytes
=========     at mi_gather+0x160
=========     by thread (0,0,0) in block (0,0,0)
=========     Access to 0x7f5c00000200 is inside an allocation of 512 bytes
"""
COPY = """\
========= Uninitialized access at 0x7f5c00000204 on access by cuMemcpyDtoHAsync source
=========     Saved host backtrace up to driver entry point at error
=========         Host Frame: copy_to_host [0x1234]
"""


def printed(*blocks: str, count: int | None = None, cases: str = "12 of 12 cases, 0 wrong") -> str:
    blocks = tuple(f"{block}=========\n" for block in blocks)
    sums = f"========= ERROR SUMMARY: {len(blocks) if count is None else count} errors\n"
    return f"========= COMPUTE-SANITIZER\n{''.join(blocks)}{cases}\n{sums}"


def test_nothing_to_complain_of():
    report = read_report("initcheck", printed())
    assert report.clean
    assert (report.complaints, report.excused.total()) == ([], 0)


def test_a_complaint_is_kept_with_all_that_is_said_of_it():
    report = read_report("initcheck", printed(READ))
    assert not report.clean
    assert report.complaints == [READ.rstrip()]
    assert READ in report.text


def test_what_a_tool_cannot_judge_is_counted_by_its_reason_and_not_shown():
    report = read_report("initcheck", printed(COPY, COPY))
    assert report.clean
    assert dict(report.excused) == {EXCUSES[0].reason: 2}
    assert "Memcpy" not in report.text
    mixed = read_report("initcheck", printed(COPY, READ, COPY))
    assert not mixed.clean
    assert mixed.complaints == [READ.rstrip()]
    assert mixed.excused.total() == 2


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "initcheck"])
def test_an_excuse_is_one_tools(tool: str):
    assert len(read_report(tool, printed(COPY)).complaints) == 1


def test_a_report_that_is_cut_short_excuses_nothing():
    assert not read_report("initcheck", printed(COPY, count=2)).clean  # one was not printed
    assert not read_report("initcheck", printed(COPY).partition("ERROR SUMMARY")[0]).clean
    assert not read_report("initcheck", printed(COPY, cases="")).clean
    assert not read_report("initcheck", printed(COPY, cases="12 of 12 cases, 1 wrong")).clean


def test_every_excuse_is_of_a_tool_that_there_is_and_gives_a_reason():
    for excuse in EXCUSES:
        assert excuse.tool in TOOLS
        assert excuse.reason
        re.compile(excuse.pattern)
