"""How plans are written: whole or not at all, the same bytes each time, equal tensors once, in little memory."""

import dataclasses
import errno
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine_format import (
    ArrayRecord,
    BuildReport,
    DType,
    PlanError,
    StoredKernel,
    StoredTensor,
    TargetSection,
    copying,
    read_plan,
    write_plan,
)
from engine_format.layout import CHUNK_NBYTES
from tests.engine_format.samples import Generated, constants_plan, document_of, file_bytes, rich_plan, tensor

SECTION = TargetSection("sm_90a", {"cudnn": "9"}, kernels=(StoredKernel("k", "s", b"code"),))


def offsets(path: Path) -> list[int]:
    with read_plan(path) as plan:
        plan.check()
        return [t.offset for t in plan.tensors if isinstance(t, StoredTensor)]


def test_must_deterministic(tmp_path: Path):
    assert file_bytes(rich_plan(), tmp_path) == file_bytes(rich_plan(), tmp_path)
    different = dataclasses.replace(rich_plan(), report=BuildReport("miniinfer 9.9.1"))
    assert file_bytes(different, tmp_path) != file_bytes(rich_plan(), tmp_path)


def test_must_deterministic_when_an_opened_plan_is_written_again(tmp_path: Path):
    same = [Generated(1000, first=1) for _ in range(1000)]  # their repetitions leave room in the header
    plan = dataclasses.replace(constants_plan(*same, tensor(b"x", 1)), targets=(SECTION,))
    write_plan(plan, tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as opened:
        assert document_of((tmp_path / "a.plan").read_bytes())["pad"]
        write_plan(opened, tmp_path / "b.plan")
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_must_store_equal_tensors_once(tmp_path: Path):
    shared = Generated(5000)
    plan = constants_plan(
        shared, tensor(b"abcd", 4), shared, Generated(5000), tensor(b"abcd", 2, 2), tensor(b"abcd", 4, dtype=DType.I8),
        ArrayRecord(DType.STR, (1,), ("a",)), ArrayRecord(DType.STR, (1,), ("a",)), ArrayRecord(DType.STR, (1,), ("b",)),
        tensor(b"abcd", 4),
    )  # fmt: skip
    write_plan(plan, tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as back:
        assert [v.tensor for v in back.graph.values] == [0, 1, 0, 0, 2, 3, 4, 4, 5, 1]
        assert [bytes(back.tensor_bytes(i)) for i in (0, 1, 2, 3)] == [bytes(plan.tensor_bytes(i)) for i in (0, 1, 4, 5)]
        back.check()
    assert offsets(tmp_path / "a.plan") == [0, 5120, 5376, 5632]
    assert (tmp_path / "a.plan").stat().st_size == 4096 + 5888


@pytest.mark.parametrize("before", [0, 100, CHUNK_NBYTES - 100, CHUNK_NBYTES - 256, CHUNK_NBYTES, 2 * CHUNK_NBYTES + 300])
def test_digests_are_right_after_a_repetition_at_any_place(tmp_path: Path, before: int):
    plan = constants_plan(
        Generated(before, first=1), tensor(b"abc", 3), Generated(CHUNK_NBYTES + 5, first=2), Generated(CHUNK_NBYTES + 5, first=2),
        tensor(b"abc", 3), Generated(700, first=3), Generated(CHUNK_NBYTES + 5, first=2),
    )  # fmt: skip
    write_plan(plan, tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as back:
        back.check()
        assert len(back.tensors) == 4
        assert [bytes(back.tensor_bytes(v.tensor)) for v in back.graph.values if v.tensor is not None] == [
            bytes(plan.tensor_bytes(i)) for i in range(7)
        ]


def test_must_use_little_memory(tmp_path: Path):
    plan = constants_plan(Generated(48 << 20), Generated(16 << 20, first=9), Generated(48 << 20))
    tracemalloc.start()
    write_plan(plan, tmp_path / "a.plan")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert (tmp_path / "a.plan").stat().st_size == 4096 + (64 << 20)


def test_a_tensor_that_is_there_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shared, reads = Generated(5000), []
    monkeypatch.setattr(Generated, "chunks", lambda self: iter([reads.append(1) or bytes(5000)]))
    write_plan(constants_plan(shared, shared), tmp_path / "a.plan")
    assert reads == [1]


def test_tensors_of_a_file_can_be_written_in_another_order(tmp_path: Path):
    tensors = (Generated(CHUNK_NBYTES + 700, first=1), tensor(b"abc", 3), Generated(300, first=2))
    write_plan(constants_plan(*tensors), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as plan:
        write_plan(constants_plan(*plan.tensors[::-1]), tmp_path / "b.plan")
    with read_plan(tmp_path / "b.plan") as back:
        back.check()
        assert [bytes(back.tensor_bytes(i)) for i in (2, 1, 0)] == [b"".join(t.chunks()) for t in tensors]


def test_a_new_target_section_copies_the_weights_without_reading_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.plan"
    write_plan(rich_plan(), path)
    with read_plan(path) as plan:
        monkeypatch.setattr(StoredTensor, "view", None)
        monkeypatch.setattr(StoredTensor, "chunks", None)
        write_plan(plan.with_target(SECTION), path)
        monkeypatch.undo()
        with read_plan(path) as tuned:
            tuned.check()
            assert [t.arch for t in tuned.targets] == ["sm_90a", "sm_80", "sm_90a"]
            assert tuned.targets[0].kernels[0].read() == b"\x7fELF" * 100
            assert tuned.targets[2].kernels[0].read() == b"code"
            assert tuned.graph == plan.graph
            assert [bytes(tuned.tensor_bytes(i)) for i in (0, 1)] == [bytes(plan.tensor_bytes(i)) for i in (0, 1)]
            write_plan(dataclasses.replace(tuned, targets=()), tmp_path / "plain.plan")
    with read_plan(tmp_path / "plain.plan") as plain:
        plain.check()
        assert plain.targets == ()


def test_weights_are_copied_block_by_block_where_the_kernel_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: int) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    write_plan(constants_plan(Generated(9 << 20)), tmp_path / "a.plan")
    monkeypatch.setattr(copying.os, "copy_file_range", refuse)
    with read_plan(tmp_path / "a.plan") as plan:
        write_plan(plan.with_target(SECTION), tmp_path / "b.plan")
    with read_plan(tmp_path / "b.plan") as copy:
        copy.check()
        assert copy.weights_nbytes == 9 << 20


def test_a_file_that_was_cut_short_while_open_is_not_copied(tmp_path: Path):
    write_plan(constants_plan(Generated(1 << 20)), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as plan:
        os.truncate(tmp_path / "a.plan", 10_000)
        with pytest.raises(PlanError, match=r"the file was cut short while it was open: 1052672 bytes were there \(byte 10000\)"):
            write_plan(plan, tmp_path / "b.plan")
    assert [p.name for p in tmp_path.iterdir()] == ["a.plan"]


def test_damaged_weights_are_not_written_on(tmp_path: Path):
    path = tmp_path / "a.plan"
    write_plan(constants_plan(Generated(1000), tensor(b"x", 1)), path)
    data = bytearray(path.read_bytes())
    data[4096 + 500] ^= 1
    path.write_bytes(data)
    with read_plan(path) as plan, pytest.raises(PlanError, match="the weights do not match digest 0"):
        write_plan(dataclasses.replace(plan, tensors=(plan.tensors[1], plan.tensors[0])), tmp_path / "b.plan")
    assert [p.name for p in tmp_path.iterdir()] == ["a.plan"]


def failing(error: BaseException) -> Iterator[bytes]:
    yield bytes(100)
    raise error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_must_write_whole_or_not_at_all(tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.plan"
    path.write_bytes(b"the old one")
    plan = constants_plan(Generated(5 << 20))
    monkeypatch.setattr(Generated, "chunks", lambda self: failing(error))
    with pytest.raises(type(error)):
        write_plan(plan, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.plan", b"the old one")]


@pytest.mark.parametrize("limit", [0, 100, 4095, 5000, 1 << 20, (2 << 20) + 4096])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, limit: int, file_size_limit):
    file_size_limit(limit)
    with pytest.raises(OSError, match="File too large") as caught:
        write_plan(dataclasses.replace(constants_plan(Generated(2 << 20)), targets=(SECTION,)), tmp_path / "a.plan")
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def file_size_limit():
    """Sets how long a file may become; writing on then fails as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(IsADirectoryError):
        write_plan(rich_plan(), tmp_path)
    with pytest.raises(FileNotFoundError) as absent:
        write_plan(rich_plan(), tmp_path / "absent" / "a.plan")
    assert absent.value.filename == str(tmp_path / "absent" / "a.plan")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        write_plan(rich_plan(), tmp_path / "pipe")

    def read_only(path, *arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OSError, match="Read-only") as refused:
        write_plan(rich_plan(), tmp_path / "a.plan")
    assert refused.value.filename == str(tmp_path / "a.plan")


def test_a_link_stays_a_link_and_modes_follow_the_umask(tmp_path: Path):
    (tmp_path / "link.plan").symlink_to(tmp_path / "real.plan")
    before = os.umask(0o027)
    try:
        write_plan(rich_plan(), tmp_path / "link.plan")
    finally:
        os.umask(before)
    assert (tmp_path / "link.plan").is_symlink()
    assert stat.S_IMODE((tmp_path / "real.plan").stat().st_mode) == 0o640


def test_must_not_write_what_readers_refuse(tmp_path: Path):
    plan = rich_plan()
    node = dataclasses.replace(plan.graph.nodes[0], inputs=(9,))
    broken = dataclasses.replace(plan, graph=dataclasses.replace(plan.graph, nodes=(node, *plan.graph.nodes[1:])))
    with pytest.raises(PlanError, match=r"^the plan breaks a rule of its format: value 'y' is read before anything makes it$"):
        write_plan(broken, tmp_path / "a.plan")
    for bad, message in [
        ({"x": 2**64}, "holds something that a file cannot: Integer value out of range"),
        ({"x": 2**63}, r"breaks a rule of its format: 9223372036854775808 is outside \[-9223372036854775808, 922337203"),
        ({"x": object()}, "holds something that a file cannot: can not serialize 'object'"),
        ({"x": "\ud800"}, r"a text in the plan is not Unicode: '\\ud800'"),
        ({1: 1}, "expected a map, got a map with a key that is not text"),
    ]:
        with pytest.raises(PlanError, match=message):
            write_plan(dataclasses.replace(plan, report=BuildReport("", bad)), tmp_path / "a.plan")
    deep = plan.graph
    for _ in range(2000):
        deep = dataclasses.replace(plan.graph, nodes=(dataclasses.replace(plan.graph.nodes[0], graphs={"g": deep}),))
    with pytest.raises(PlanError, match="the plan is nested too deeply"):
        write_plan(dataclasses.replace(plan, graph=deep), tmp_path / "a.plan")
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_gives_too_few_bytes_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Generated, "chunks", lambda self: iter([b"123"]))
    with pytest.raises(ValueError, match="tensor 0 gave 3 bytes, but has 4"):
        write_plan(constants_plan(Generated(4)), tmp_path / "a.plan")
    assert list(tmp_path.iterdir()) == []


def test_room_left_in_the_header_is_zeros(tmp_path: Path):
    data = file_bytes(constants_plan(*(tensor(b"x", 1) for _ in range(1000))), tmp_path)
    document = document_of(data)
    assert len(document["tensors"]) == 1
    assert document["pad"] == bytes(len(document["pad"]))
    assert len(document["pad"]) > 4096
