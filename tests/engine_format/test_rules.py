"""Each rule of docs/plan-format.md is held: by a broken file that the reader refuses, or by a test of the writer."""

import re
import time
from pathlib import Path

import msgpack
import pytest

from engine_format import DType, PlanError, read_plan
from engine_format.layout import CHUNK_NBYTES, OP_SETS, PREAMBLE, digest, weights_start
from engine_format.strict import locate
from tests.engine_format import test_writing
from tests.engine_format.rules import ATTACKS, DAMAGE, TUNED_ATTACKS, Attack
from tests.engine_format.samples import constants_plan, document_of, edited, file_bytes, header_of, rich_plan, tensor, tuned_plan

SPEC = Path(__file__).parents[2] / "docs" / "plan-format.md"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_bytes(rich_plan(), tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return file_bytes(tuned_plan(), tmp_path_factory.mktemp("tuned"))


@pytest.mark.parametrize("attack", TUNED_ATTACKS, ids=lambda a: a.name)
def test_must_of_tuned_sections(attack: Attack, tuned: bytes, tmp_path: Path):
    test_must(attack, tuned, tmp_path)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_must(attack: Attack, sound: bytes, tmp_path: Path):
    data = attack.make(sound)
    (tmp_path / "bad.plan").write_bytes(data)
    started = time.perf_counter()
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path / "bad.plan")
    assert time.perf_counter() - started < 1
    assert str(caught.value).startswith(attack.message)
    assert caught.value.path == str(tmp_path / "bad.plan")
    assert isinstance(caught.value.offset, int)
    if attack.at is not None:
        assert caught.value.offset == PREAMBLE.size + locate(header_of(data), attack.at)


@pytest.mark.parametrize("attack", DAMAGE, ids=lambda a: a.name)
def test_must_when_looked_at(attack: Attack, sound: bytes, tmp_path: Path):
    (tmp_path / "bad.plan").write_bytes(attack.make(sound))
    with read_plan(tmp_path / "bad.plan") as plan:
        with pytest.raises(PlanError) as caught:
            plan.check()
        assert str(caught.value) == attack.message
        if attack.rule == "weights-digest":
            for index in (0, 1):
                with pytest.raises(PlanError, match="the weights do not match digest 0"):
                    plan.tensor_bytes(index)


def test_must_gaps_zero(sound: bytes, tmp_path: Path):
    start = weights_start(len(header_of(sound)))
    for place in (16, 255, 258, 511):
        weights = bytearray(sound[start : start + 512])
        weights[place] = 1
        data = edited(
            sound[:start] + weights + sound[start + 512 :], lambda h, w=bytes(weights): h["weights"].__setitem__(2, digest(w))
        )
        (tmp_path / "bad.plan").write_bytes(data)
        with read_plan(tmp_path / "bad.plan") as plan:
            plan.tensor_bytes(0)
            with pytest.raises(PlanError, match=r"there is something in a gap that must be zeros \(byte 4[1-5]\d\d\)"):
                plan.check()


def test_must_gaps_zero_behind_the_last_tensor(tmp_path: Path):
    data = file_bytes(constants_plan(tensor(b"abc", 3)), tmp_path)
    weights = data[4096:-1] + b"x"
    (tmp_path / "bad.plan").write_bytes(edited(data[:4096] + weights, lambda h: h["weights"].__setitem__(2, digest(weights))))
    with read_plan(tmp_path / "bad.plan") as plan, pytest.raises(PlanError, match=r"a gap that must be zeros \(byte 4099\)"):
        plan.check()


def test_a_refused_file_is_closed(sound: bytes, tmp_path: Path):
    (tmp_path / "bad.plan").write_bytes(sound[:-1])
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path / "bad.plan")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert caught.value.path == str(tmp_path / "bad.plan")


def test_the_places_that_errors_name_are_right(sound: bytes):
    header = header_of(sound)
    for path in [("graph", 5, 2, 5, "epsilon"), ("targets", 0, 2, 1, 6), ("op_sets", "acme"), ("pad",)]:
        value: object = document_of(sound)
        for step in path:
            value = value[step]  # type: ignore[index]
        assert header[locate(header, path) :].startswith(msgpack.packb(value))
    whole = locate(header, ("graph",))
    assert locate(header, ("graph", 99)) == whole
    assert locate(header, ("graph", "name")) == whole
    assert locate(header, ("absent", 1)) == 0


def test_hints_say_the_way_out(sound: bytes, tmp_path: Path):
    hints = {}
    for attack in ATTACKS:
        if attack.rule in ("known-format", "known-op-sets", "header-digest"):
            (tmp_path / "bad.plan").write_bytes(attack.make(sound))
            with pytest.raises(PlanError) as caught:
                read_plan(tmp_path / "bad.plan")
            hints[attack.message] = caught.value.hint
    assert [m for m, h in hints.items() if not h] == ["there is no plan format 0 (byte 8)"]


def rules() -> list[str]:
    return re.findall(r"^- `([a-z0-9-]+)`: ", SPEC.read_text(), re.MULTILINE)


def test_every_must_of_the_spec_has_a_test():
    names = rules()
    assert len(set(names)) == len(names)
    in_writing = {n.removeprefix("test_must_").replace("_", "-") for n in vars(test_writing) if n.startswith("test_must_")}
    here = {"gaps-zero", "only-plan-errors"}
    tested = {a.rule for a in (*ATTACKS, *TUNED_ATTACKS, *DAMAGE)} | here | {n for n in in_writing if n in names}
    assert set(names) == tested


def test_the_word_must_stands_in_rules_only():
    paragraphs = re.split(r"\n(?=- `)|\n\n", SPEC.read_text())
    loose = [p for p in paragraphs if re.search(r"\bmust\b", p) and not p.startswith("- `")]
    idle = [p for p in paragraphs if re.match(r"- `[a-z0-9-]+`:", p) and not re.search(r"\bmust\b", p)]
    assert (loose, idle) == ([], [])


def test_the_spec_has_the_figures_of_the_code():
    text = SPEC.read_text()
    assert str(CHUNK_NBYTES) in text
    for domain, version in OP_SETS.items():
        assert re.search(rf"`{re.escape(domain)}`\s+(\(our own operations\) )?up\s+to {version}\b", text)


def test_the_spec_lists_the_element_types():
    text = re.sub(r"\s+", " ", SPEC.read_text())
    assert [d for d in DType if f"`{d}` {d.bits or '(no fixed width)'}" not in text] == []
