"""Tactic records in plans and in timing caches: they come back, are signed, and are of format 2; a damaged cache is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine_format import PlanError, RecordChooser, TargetSection, read_plan, write_plan
from engine_format.encode import format_of
from engine_format.signing import is_signed, sign
from engine_format.timing_cache import parse_timing_cache, write_timing_cache
from tests.engine_format.samples import rich_plan, tuned_plan, tuned_section

KEY = bytes(range(32))


def test_records_come_back(tmp_path: Path):
    expected = tuned_section()
    write_plan(tuned_plan(), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as back:
        first, *others = back.targets
        assert (first.gpu, first.records, first.libraries) == (expected.gpu, expected.records, expected.libraries)
        assert [k.read() for k in first.kernels] == [b"\x7fELF", b""]
        assert [(t.gpu, t.records) for t in others] == [(None, ()), (None, ())]
        back.check()
        write_plan(back, tmp_path / "b.plan")
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_only_tuned_sections_need_format_2():
    assert (format_of(rich_plan()), format_of(tuned_plan())) == (1, 2)
    gpu_alone = replace(tuned_section(), records=())
    assert format_of(rich_plan().with_target(gpu_alone)) == 2


def test_a_file_of_format_1_has_no_tuned_sections(tmp_path: Path):
    write_plan(tuned_plan(), tmp_path / "a.plan")
    data = bytearray((tmp_path / "a.plan").read_bytes())
    data[8] = 1
    (tmp_path / "a.plan").write_bytes(data)
    with pytest.raises(PlanError, match="expected a target section of 4 fields, got a list of 6"):
        read_plan(tmp_path / "a.plan")


def test_a_section_replaces_that_of_its_gpu_and_no_other():
    section = tuned_section()
    assert section.gpu is not None
    plan = tuned_plan()
    other = replace(section, gpu=replace(section.gpu, name="NVIDIA H100"))
    newer = replace(section, libraries={"cublaslt": "14"})
    assert plan.with_target(other).targets == (*plan.targets, other)
    assert plan.with_target(newer).targets == (*plan.targets[1:], newer)
    kernels = TargetSection("sm_90", {"cublaslt": "13.1.0"})
    assert plan.with_target(kernels).targets == (*plan.targets, kernels)


@pytest.mark.parametrize(
    "changes", [{"gpu": None, "records": ()}, {"records": ()}, {"records": tuned_section().records[::-1]}, {"gpu": "other"}]
)
def test_a_signature_covers_gpu_and_records(changes: dict):
    section = tuned_section()
    assert section.gpu is not None
    if changes.get("gpu") == "other":
        changes = {"gpu": replace(section.gpu, l2_nbytes=1)}
    signed = sign(section, KEY)
    assert is_signed(signed, [KEY])
    assert not is_signed(replace(signed, **changes), [KEY])


def test_a_timing_cache_holds_the_records_without_kernels(tmp_path: Path):
    write_timing_cache(tmp_path / "cache", [tuned_section()])
    (back,) = parse_timing_cache((tmp_path / "cache").read_bytes())
    assert (back.arch, back.gpu, back.kernels) == ("sm_90", tuned_section().gpu, ())
    assert back.records == tuple(replace(r, kernels=()) for r in tuned_section().records)
    assert back.records[-1].chosen_by is RecordChooser.HEURISTIC


def test_a_damaged_timing_cache_is_refused(tmp_path: Path):
    write_timing_cache(tmp_path / "cache", [tuned_section()])
    data = (tmp_path / "cache").read_bytes()
    for at in range(0, len(data), 7):
        with pytest.raises(PlanError):
            parse_timing_cache(data[:at])
        with pytest.raises(PlanError):
            parse_timing_cache(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(PlanError, match="this is not a timing cache"):
        parse_timing_cache(b"something else entirely, and long enough")
