"""What is written comes back: records, contents, bindings, sections; and reading does not look at the weights."""

import dataclasses
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from engine_format import ArrayRecord, BindingRecord, DType, Plan, PlanError, StoredKernel, TargetSection, read_plan, write_plan
from engine_format.encode import Placement, encode_header
from engine_format.layout import CHUNK_NBYTES, FORMAT_VERSION, MAGIC, PREAMBLE, chunk_count, digest, weights_start
from tests.engine_format.samples import F32, Generated, constants_plan, rich_plan, tensor


def contents(plan: Plan) -> list[bytes | tuple[str, ...]]:
    return [
        t.data if isinstance(t, ArrayRecord) and t.dtype is DType.STR else bytes(plan.tensor_bytes(i))
        for i, t in enumerate(plan.tensors)
    ]


def test_every_record_comes_back(tmp_path: Path):
    plan = rich_plan()
    write_plan(plan, tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as back:
        assert back.graph == plan.graph
        assert back.report == plan.report
        assert (back.op_sets, back.ranges) == (plan.op_sets, plan.ranges)
        assert [(t.dtype, t.shape) for t in back.tensors] == [(t.dtype, t.shape) for t in plan.tensors]
        assert contents(back) == contents(plan)
        assert [(t.arch, t.libraries, t.tactics) for t in back.targets] == [
            (t.arch, t.libraries, t.tactics) for t in plan.targets
        ]
        kernels = [[(k.name, k.source, k.nbytes, k.read()) for k in t.kernels] for t in back.targets]
        assert kernels == [[(k.name, k.source, k.nbytes, k.read()) for k in t.kernels] for t in plan.targets]
        assert back.weights_nbytes == plan.weights_nbytes == 18
        back.check()


def test_bindings_are_inputs_and_output_names(tmp_path: Path):
    write_plan(rich_plan(), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as plan:
        assert [b.name for b in plan.inputs] == ["x", "flag", "list", "dictionary"]
        assert plan.outputs[:2] == (BindingRecord("y", F32), BindingRecord("again", F32))
        assert plan.path == str(tmp_path / "a.plan")
    assert (rich_plan().path, rich_plan().digest) == ("", "")


def test_an_empty_graph_is_a_plan(tmp_path: Path):
    write_plan(constants_plan(), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as plan:
        assert plan.weights_range() == (4096, 0)
        assert (plan.graph.values, plan.tensors, plan.inputs, plan.outputs) == ((), (), (), ())
        plan.check()
    assert (tmp_path / "a.plan").stat().st_size == 4096


def test_a_chunk_of_weights_is_checked_once_when_it_is_first_looked_at(tmp_path: Path):
    first, second = Generated(CHUNK_NBYTES), Generated(CHUNK_NBYTES + 1, first=7)
    write_plan(constants_plan(first, second), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as plan:
        assert plan.file is not None
        checked: list[int] = []
        verify = plan.file.verify
        plan.file.verify = lambda chunk, data: (checked.append(chunk), verify(chunk, data))[1]  # type: ignore[method-assign]
        assert bytes(plan.tensor_bytes(1)) == b"".join(second.chunks())
        assert checked == [1, 2]
        plan.tensor_bytes(1)
        assert bytes(plan.tensor_bytes(0)) == b"".join(first.chunks())
        assert checked == [1, 2, 0]
        plan.check()
        assert checked == [1, 2, 0]


def test_threads_look_at_the_same_tensors_safely(tmp_path: Path):
    tensors = [Generated(3_000_000, first=i) for i in range(8)]
    write_plan(constants_plan(*tensors), tmp_path / "a.plan")
    expected = [digest(b"".join(t.chunks())) for t in tensors]
    with read_plan(tmp_path / "a.plan") as plan:
        assert plan.file is not None
        checked: list[int] = []
        verify = plan.file.verify
        plan.file.verify = lambda chunk, data: (checked.append(chunk), verify(chunk, data))[1]  # type: ignore[method-assign]
        results: list[list[bytes]] = []
        threads = [
            threading.Thread(target=lambda: results.append([digest(plan.tensor_bytes(i)) for i in range(8)])) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [expected] * 6
        assert sorted(checked) == list(range(chunk_count(plan.weights_range()[1])))


def test_a_loader_can_read_the_weights_itself(tmp_path: Path):
    write_plan(constants_plan(Generated(CHUNK_NBYTES), tensor(b"abc", 3)), tmp_path / "a.plan")
    with read_plan(tmp_path / "a.plan") as plan:
        assert plan.file is not None
        start, nbytes = plan.weights_range()
        data = os.pread(plan.file.fileno(), nbytes, start)
        plan.file.verify(0, data[:CHUNK_NBYTES])
        plan.file.verify(1, data[CHUNK_NBYTES:])
        assert data[plan.tensors[1].offset :][:3] == b"abc"  # type: ignore[attr-defined]
        with pytest.raises(PlanError, match=rf"do not match digest 1: the file is damaged \(byte {start + CHUNK_NBYTES}\)"):
            plan.file.verify(1, data[:CHUNK_NBYTES])


def test_a_plan_of_100_gb_opens_in_milliseconds(tmp_path: Path):
    nbytes = 100 << 30
    tensors = tuple(Generated(nbytes // 4, first=i) for i in range(4))
    placement = Placement((0, 1, 2, 3), (0, 1, 2, 3), tuple(i * (nbytes // 4) for i in range(4)), nbytes,
                          bytes(16 * chunk_count(nbytes)), ())  # fmt: skip
    header = encode_header(constants_plan(*tensors), placement)
    path = tmp_path / "large.plan"
    path.write_bytes(PREAMBLE.pack(MAGIC, FORMAT_VERSION, 0, len(header), digest(header)) + header)
    os.truncate(path, weights_start(len(header)) + nbytes)  # a hole: it takes no room on the disk
    times = []
    tracemalloc.start()
    for _ in range(5):
        started = time.perf_counter()
        with read_plan(path) as plan:
            times.append(time.perf_counter() - started)
            assert plan.weights_nbytes == nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(times) < 0.05
    assert peak < 4_000_000


def test_a_closed_plan_lets_go_of_the_file_but_not_of_arrays(tmp_path: Path):
    write_plan(constants_plan(tensor(b"abc", 3)), tmp_path / "a.plan")
    plan = read_plan(tmp_path / "a.plan")
    view = plan.tensor_bytes(0)
    plan.close()
    plan.close()
    assert bytes(view) == b"abc"
    assert plan.file is not None
    with pytest.raises(ValueError, match="the plan file is closed"):
        plan.file.fileno()


def test_replacing_the_file_leaves_an_open_plan_as_it_was(tmp_path: Path):
    path = tmp_path / "a.plan"
    write_plan(constants_plan(tensor(b"old", 3)), path)
    with read_plan(path) as old:
        write_plan(constants_plan(tensor(b"new", 3)), path)
        with read_plan(path) as new:
            assert (bytes(old.tensor_bytes(0)), bytes(new.tensor_bytes(0))) == (b"old", b"new")


def test_a_plan_in_memory_gives_its_bytes_and_has_no_range():
    plan = constants_plan(Generated(10, piece=4))
    assert bytes(plan.tensor_bytes(0)) == b"\0\0\0\0\1\1\1\1\2\2"
    plan.check()
    plan.close()
    with pytest.raises(ValueError, match="a plan in memory has no file"):
        plan.weights_range()


def test_a_target_section_takes_the_place_of_the_one_for_the_same_machine():
    old, other = TargetSection("sm_90a", {"cudnn": "9"}), TargetSection("sm_90a", {"cudnn": "10"})
    new = TargetSection("sm_90a", {"cudnn": "9"}, kernels=(StoredKernel("k", "", b"1"),))
    plan = dataclasses.replace(constants_plan(), targets=(old, other))
    assert plan.with_target(new).targets == (other, new)
    assert plan.targets == (old, other)


def test_files_that_cannot_be_opened_raise_oserror(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_plan(tmp_path / "absent.plan")
    with pytest.raises(IsADirectoryError):
        read_plan(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_plan(tmp_path / "pipe")
