"""Signatures of target sections: whatever is changed in a section, its signature no longer fits."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine_format import PlanError, StoredKernel, Tactic, TacticKind, TargetSection, read_plan, write_plan
from engine_format.signing import in_memory, is_signed, sign
from tests.engine_format.samples import rich_plan

KEY, OTHER = bytes(range(32)), bytes(32)
TACTIC = Tactic("MatMul f16", ((2, 4),), TacticKind.CUBLASLT, algorithm=bytes(64), knobs={"a": 1, "b": 2})
SECTION = TargetSection(
    "sm_90", {"nvrtc": "12.9"}, (TACTIC,), (StoredKernel("mul", "01", b"code"), StoredKernel("add", "23", b"more"))
)


def test_a_signature_fits_its_key_and_no_other():
    signed = sign(SECTION, KEY)
    assert replace(signed, signature="") == SECTION
    assert is_signed(signed, [KEY])
    assert is_signed(signed, [OTHER, KEY])
    assert not is_signed(signed, [OTHER])
    assert not is_signed(signed, [])
    assert not is_signed(SECTION, [KEY])
    assert not is_signed(replace(SECTION, signature="é" * 64), [KEY])
    assert sign(replace(SECTION, libraries=dict(SECTION.libraries)), KEY) == signed


mul, add = SECTION.kernels


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "sm_80"},
        {"libraries": {"nvrtc": "12.8"}},
        {"kernels": (mul,)},
        {"kernels": (add, mul)},
        {"kernels": (replace(mul, name="add"), add)},
        {"kernels": (replace(mul, source="23"), add)},
        {"kernels": (replace(mul, code=b"codf"), add)},
        {"kernels": (replace(mul, code=add.code), replace(add, code=mul.code))},
        {"kernels": (replace(mul, name="mul0", source="1"), add)},
        {"tactics": ()},
        {"tactics": (replace(TACTIC, algorithm=bytes(63) + b"\1"),)},
        {"tactics": (replace(TACTIC, knobs={"b": 2, "a": 1}),)},
    ],
)
def test_whatever_is_changed_no_longer_fits(changes: dict):
    assert not is_signed(replace(sign(SECTION, KEY), **changes), [KEY])


def test_signatures_are_kept_in_files_of_the_format_that_there_was(tmp_path: Path):
    plan = rich_plan()
    signed = replace(plan, targets=(plan.targets[0], sign(plan.targets[1], KEY)))
    write_plan(signed, tmp_path / "signed.plan")
    with read_plan(tmp_path / "signed.plan") as read:
        assert [is_signed(t, [KEY]) for t in read.targets] == [False, True]
        assert read.report == plan.report
        write_plan(replace(read, targets=read.targets[1:]), tmp_path / "one.plan")
    assert (tmp_path / "signed.plan").read_bytes()[8] == 1
    with read_plan(tmp_path / "one.plan") as one:
        assert [is_signed(t, [KEY]) for t in one.targets] == [True]


def test_code_that_was_changed_with_its_digest_is_not_trusted(tmp_path: Path):
    plan = rich_plan()
    section = sign(plan.targets[0], KEY)
    forged = replace(section, kernels=(replace(section.kernels[0], code=b"\x7fELF" * 99 + b"\x7fELG"), *section.kernels[1:]))
    write_plan(replace(plan, targets=(forged,)), tmp_path / "forged.plan")
    with read_plan(tmp_path / "forged.plan") as read:
        read.check()
        assert not is_signed(read.targets[0], [KEY])


def test_a_section_in_memory_does_not_follow_its_file(tmp_path: Path):
    plan = replace(rich_plan(), targets=(sign(rich_plan().targets[0], KEY),))
    path = tmp_path / "a.plan"
    write_plan(plan, path)
    with read_plan(path) as read:
        held = in_memory(read.targets[0])
        data = bytearray(path.read_bytes())
        data[data.index(b"\x7fELF")] ^= 1
        path.write_bytes(data)  # in place, which nobody should do
        with pytest.raises(PlanError, match="a kernel does not match its digest"):
            is_signed(read.targets[0], [KEY])
        assert is_signed(held, [KEY])
        assert held.kernels[0].code == b"\x7fELF" * 100
