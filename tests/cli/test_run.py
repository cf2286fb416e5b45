"""miniinfer run and profile: the summary, inputs and outputs as files, and what they refuse."""

import io
import json
import math
import os
import re
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from engine_format.layout import FORMAT_VERSION
from miniinfer_cli.cli.feeds import top_entries
from miniinfer_cli.ir import DType, numpy_dtype

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def quick(*flags: object) -> tuple[object, ...]:
    return ("--iterations", 3, "--warmup", 0, "--duration", 0, *flags)


def test_the_summary(miniinfer, plan):
    outcome = miniinfer("run", plan, *quick("--shapes", "x:6x4", "--percentile", "50,99.5"))
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[1:4] == ["Device: cpu", "Input: x: f32[batch,4] <- 6x4", "Output: y: f32[batch,3]"]
    names = [line.split(":")[0] for line in lines[lines.index("=== Performance summary ===") + 1 :]]
    assert names[:6] == ["Throughput", "Latency", "End-to-end latency", "Total host walltime", "Total compute time", "Inferences"]
    latency = next(line for line in lines if line.startswith("Latency: "))
    assert "percentile(50%) = " in latency
    assert "percentile(99.5%) = " in latency
    assert "Inferences: 3" in lines
    assert " samples/s)" in outcome.out


def test_json_and_times(miniinfer, plan, tmp_path):
    outcome = miniinfer("run", plan, *quick("--json", "-", "--export-times", tmp_path / "t.json"))
    document = json.loads(outcome.out)
    assert (document["iterations"], document["device"], document["streams"]) == (3, "cpu", 1)
    assert list(document["latency_ms"]) == ["min", "max", "mean", "median", "p90", "p95", "p99"]
    times = json.loads((tmp_path / "t.json").read_text())["inferences"]
    assert len(times) == 3
    assert all(0 < t["latency_ms"] <= t["end_to_end_ms"] for t in times)


def test_streams(miniinfer, plan):
    document = json.loads(miniinfer("run", plan, *quick("--streams", 3, "--json", "-")).out)
    assert (document["iterations"], document["streams"]) == (9, 3)


def test_averages(miniinfer, plan):
    lines = miniinfer("run", plan, *quick("--avg-runs", 2)).out.splitlines()
    averages = [line for line in lines if line.startswith("Average of ")]
    assert [a.split(":")[0] for a in averages] == ["Average of 2 from inference 0", "Average of 1 from inference 2"]


@pytest.mark.parametrize("kind", ["npy", "npz", "other.npz", "pb", "raw"])
def test_inputs_from_files_and_outputs_to_a_file(miniinfer, plan, tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, X)
    elif kind == "npz":
        np.savez(path, x=X, more=X + 1)
    elif kind == "other.npz":
        np.savez(path, anything=X)
    elif kind == "pb":
        path.write_bytes(numpy_helper.from_array(X).SerializeToString())
    else:
        path.write_bytes(X.tobytes())
    outcome = miniinfer("run", plan, *quick("--input", f"x={path}", "--output", tmp_path / "y.npz", "--top-k", 2))
    assert outcome.code == 0
    model = onnx.load(plan.with_suffix(".onnx"))
    w1, b1, w2 = (numpy_helper.to_array(t) for t in model.graph.initializer)
    expected = np.maximum(X @ w1 + b1, 0) @ w2
    with np.load(tmp_path / "y.npz") as saved:
        assert np.allclose(saved["y"], expected, rtol=1e-5)
    order = np.argsort(-expected[0])[:2]
    assert outcome.out.splitlines()[4].startswith(f"Top 2 of y[0]: {order[0]} ({expected[0][order[0]]:.4f}), {order[1]} (")


def test_profile(miniinfer, plan):
    outcome = miniinfer("profile", plan, *quick("--top", 1))
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    start = lines.index("=== Time by node ===")
    assert lines[start + 1].split() == [
        *("node", "of", "operation", "how", "GB/s", "GFLOP/s", "%", "of", "best", "bound", "by", "gap", "us", "median", "ms", "%")
    ]
    assert lines[start + 3].startswith("1 more nodes: ")
    assert "=== Time by operation ===" in lines
    assert any(line.startswith("Activations: ") for line in lines)
    document = json.loads(miniinfer("profile", plan, *quick("--json", "-", "--streams", 2)).out)
    assert (document["plan"], document["device"], document["gpu_state"]) == (str(plan), "cpu", {})
    assert [n["operation"] for n in document["nodes"]] == ["miniinfer.FusedMatMul", "MatMul"]
    assert [n["origins"] for n in document["nodes"]] == [["first", "hidden"], ["last"]]
    assert document["streams"] == 2
    assert 0 < document["arena_bytes"] <= document["activation_bytes"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--input", "z=x.npy"), 2, "--input z=x.npy: there is no such input\n  hint: the plan's inputs are x: f32[batch,4]"),
        (("--input", "x=absent.npy"), 2, "absent.npy: cannot be read: No such file or directory"),
        (("--shapes", "z:1"), 2, "there is no input 'z'"),
        (("--shapes", "x:1x5"), 2, "input 'x': shape 1x5 does not fit f32[batch,4]: 5 is not 4"),
        (("--device", "cuda:9"), 5, "cuda:9: "),
        (("--device", "tpu"), 2, "device 'tpu' is not one of auto, cpu, cuda:N"),
        (("--percentile", "101"), 2, "'101' is not a list of percentages between 0 and 100"),
        (("--iterations", "0"), 2, "0 is not in the range x>=1"),
        (("--seed", "-1"), 2, "-1 is not in the range x>=0"),
        (("--warmup", "nan"), 2, "nan is not a finite number"),
        (("--duration", "inf"), 2, "inf is not a finite number"),
        (("--shapes", f"x:{1 << 60}x4"), 2, f"an input has {1 << 50} elements at most, got {1 << 60}x4"),
        (("--output", "/proc/y.npz"), 2, "/proc/y.npz: cannot be written: "),
        (("--json", "/proc/y.json"), 2, "/proc/y.json: cannot be written: "),
        (("--export-times", "/proc/t.json"), 2, "/proc/t.json: cannot be written: "),
        (("--frobnicate",), 2, "No such option"),
    ],
)
def test_wrong_flags(miniinfer, plan, flags, code, message):
    outcome = miniinfer("run", plan, *quick(*flags))
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X.astype(np.float64), "input 'x': got f64[2,4], expected f32[batch,4]\n  hint: convert it with .astype(float32)"),
        (X.reshape(4, 2), "input 'x': shape 4x2 does not fit f32[batch,4]: 2 is not 4"),
        (X.reshape(8), "input 'x': shape 8 has rank 1, expected f32[batch,4]"),
    ],
)
def test_arrays_that_do_not_fit(miniinfer, plan, tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    outcome = miniinfer("run", plan, *quick("--input", f"x={tmp_path / 'x.npy'}"))
    assert outcome.code == 2
    assert message in outcome.err


def damaged(whole: bytes, place: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]


def test_files_that_hold_no_array(miniinfer, plan, tmp_path):
    np.save(tmp_path / "whole.npy", X)
    np.savez_compressed(tmp_path / "whole.npz", x=X)
    npy, npz = ((tmp_path / f"whole.{kind}").read_bytes() for kind in ("npy", "npz"))
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("x", "hello")
    huge = npy.replace(b"(2, 4), }" + b" " * 30, b"(2, 4" + b"0" * 30 + b"), }")
    contents = {
        "x.npy": b"hello", "x.npz": b"hello", "x.pb": b"hello", "x.raw": b"12345", "empty.npy": b"", "empty.npz": b"",
        "short.npy": npy[:-1], "short.npz": npz[:-9], "changed.npz": damaged(npz, 60), "header.npy": damaged(npy, 60),
        "huge.npy": huge, "text.npz": (tmp_path / "text.npz").read_bytes(),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        outcome = miniinfer("run", plan, *quick("--input", f"x={tmp_path / name}"))
        assert outcome.code == 2, name
        assert outcome.err.startswith(f"miniinfer: error: {tmp_path / name}: "), name
        assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("size", "flags", "message"),
    [
        (
            0,
            (),
            "is empty, expected a multiple of 16 bytes: input 'x' is f32[batch,4], 4 bytes an element\n  hint: give --shapes x:",
        ),
        (
            15,
            (),
            "holds 15 bytes, expected a multiple of 16: input 'x' is f32[batch,4], 4 bytes an element\n  hint: give --shapes x:",
        ),
        (16, ("--shapes", "x:2x4"), "holds 16 bytes, expected 32: input 'x' is f32[2,4], 4 bytes an element\n"),
        (0, ("--shapes", "x:0x4"), ""),
        (32, ("--shapes", "x:2x4"), ""),
        (48, (), ""),
    ],
)
@pytest.mark.parametrize("pipe", [False, True])
def test_the_size_of_a_raw_file(miniinfer, plan, tmp_path, size, flags, message, pipe):
    path = tmp_path / "x.raw"
    if pipe:
        reading, writing = os.pipe()
        os.write(writing, bytes(size))
        os.close(writing)
        path = f"/dev/fd/{reading}"
    else:
        path.write_bytes(bytes(size))
    outcome = miniinfer("run", plan, *quick("--input", f"x={path}", *flags))
    assert outcome.code == (2 if message else 0)
    assert outcome.err.startswith(f"miniinfer: error: {path}: {message}" if message else "")
    if pipe:
        os.close(reading)


@pytest.mark.parametrize("save", [np.save, lambda path, x: np.savez(path, x=x)])
def test_objects_are_refused_in_our_own_words(miniinfer, plan, tmp_path, save):
    with (tmp_path / "x.npy").open("wb") as file:
        save(file, np.array([None, "a"], object))
    outcome = miniinfer("run", plan, *quick("--input", f"x={tmp_path / 'x.npy'}"))
    assert (outcome.code, outcome.err) == (
        2,
        f"miniinfer: error: {tmp_path / 'x.npy'}: holds Python objects, which are not read\n"
        "  hint: save an array of numbers, or of text: np.save(file, array.astype(str))\n",
    )


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("header", [{"descr": ()}, {"shape": (True, 4)}, {"shape": "24"}, {"fortran_order": 1}])
def test_headers_of_odd_types_are_damage(miniinfer, plan, tmp_path, header, archive):
    whole = {"descr": "<f4", "fortran_order": False, "shape": (2, 4)} | header
    text = f"{whole}\n".encode()
    data = np.lib.format.magic(1, 0) + struct.pack("<H", len(text)) + text + bytes(32)
    path = tmp_path / "x.npy"
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", data)
    else:
        path.write_bytes(data)
    outcome = miniinfer("run", plan, *quick("--input", f"x={path}"))
    assert outcome.code == 2
    assert outcome.err.startswith(f"miniinfer: error: {path}: does not hold an array: ")
    assert outcome.err.endswith("\n  hint: write it by np.save, np.savez or TensorProto.SerializeToString\n")


@pytest.mark.parametrize("kind", ["npy", "npz", "pb"])
def test_arrays_come_through_pipes(miniinfer, plan, tmp_path, kind):
    file = io.BytesIO()
    if kind == "pb":
        file.write(numpy_helper.from_array(X).SerializeToString())
    else:
        np.save(file, X) if kind == "npy" else np.savez(file, x=X)
    os.mkfifo(tmp_path / f"x.{kind}")
    writer = threading.Thread(target=lambda: (tmp_path / f"x.{kind}").write_bytes(file.getvalue()))
    writer.start()
    outcome = miniinfer("run", plan, *quick("--input", f"x={tmp_path / f'x.{kind}'}"))
    writer.join()
    assert (outcome.code, "Input: x: f32[batch,4] <- 2x4\n" in outcome.out) == (0, True)


def test_the_first_bytes_tell_an_array_from_an_archive(miniinfer, plan, tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "y.npz", x=X)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    (tmp_path / "y.npz").rename(tmp_path / "y.npy")
    for name in ("x.npz", "y.npy"):
        assert miniinfer("run", plan, *quick("--input", f"x={tmp_path / name}")).code == 0


def test_a_file_and_shapes_must_agree(miniinfer, plan, tmp_path):
    np.save(tmp_path / "x.npy", X)
    given = f"x={tmp_path / 'x.npy'}"
    assert miniinfer("run", plan, *quick("--input", given, "--shapes", "x:2x4")).code == 0
    outcome = miniinfer("run", plan, *quick("--input", given, "--shapes", "x:1x4"))
    assert outcome.code == 2
    told = (
        f"miniinfer: error: --input {given}: its shape is 2x4, but --shapes says 1x4\n  hint: leave --shapes out, or give 2x4\n"
    )
    assert outcome.err == told


def test_no_report_overwrites_the_plan(miniinfer, plan):
    before = plan.read_bytes()
    for command, flag in (("run", "--json"), ("run", "--output"), ("run", "--export-times"), ("profile", "--json")):
        outcome = miniinfer(command, plan, *quick(flag, plan))
        assert outcome.code == 2
        assert outcome.err.startswith(f"miniinfer: error: {plan}: {flag} would overwrite the file that is read\n")
    assert plan.read_bytes() == before


def test_who_may_read_a_file_is_found_out_by_reading_it(miniinfer, plan, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)  # click would ask, and refuse with its own exit code
    assert miniinfer("run", plan, *quick()).code == 0


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0,), ()])
def test_the_largest_entries_of_few_numbers(shape):
    expected = [[(0, 1.0)]] if shape == () else [[]] * math.prod(shape[:-1])
    assert top_entries(np.ones(shape, np.float32), 2) == expected


def test_a_missing_plan(miniinfer, tmp_path):
    outcome = miniinfer("run", tmp_path / "no.plan")
    assert outcome.code == 4
    hint = "build it first: miniinfer build model.onnx -o model.plan"
    assert outcome.err == f"miniinfer: error: {tmp_path / 'no.plan'}: no such file\n  hint: {hint}\n"


@pytest.mark.parametrize(("contents", "message"), [(b"x" * 64, "it begins with"), (b"x", "1 bytes are too few")])
def test_a_file_that_is_not_a_plan(miniinfer, tmp_path, contents, message):
    (tmp_path / "model.onnx").write_bytes(contents)
    outcome = miniinfer("run", tmp_path / "model.onnx")
    assert outcome.code == 4
    first, hint = outcome.err.splitlines()
    assert first.startswith(f"miniinfer: error: {tmp_path / 'model.onnx'}: this is not a plan: {message}")
    assert hint == "  hint: plans are made by: miniinfer build model.onnx -o model.plan, or miniinfer_cli.build(model, plan)"


def test_a_plan_of_a_newer_format(miniinfer, plan):
    whole = bytearray(plan.read_bytes())
    whole[8] = FORMAT_VERSION + 1  # after the magic
    plan.write_bytes(whole)
    for command in ("run", "profile", "inspect"):
        outcome = miniinfer(command, plan)
        assert outcome.code == 4
        assert outcome.err.startswith(f"miniinfer: error: {plan}: ")
        assert f"format {FORMAT_VERSION + 1}" in outcome.err
        assert "\n  hint: " in outcome.err


def test_damaged_plans(miniinfer, plan):
    whole = plan.read_bytes()
    for size in (0, 7, 20, 100, len(whole) // 2, len(whole) - 1):
        plan.write_bytes(whole[:size])
        outcome = miniinfer("run", plan, *quick())
        assert outcome.code == 4, size
        assert outcome.err.startswith(f"miniinfer: error: {plan}: ")
    for place in (0, 9, 40, len(whole) - 200):
        plan.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        outcome = miniinfer("run", plan, *quick())
        assert outcome.code == 4, place
        assert "Traceback" not in outcome.err


def test_every_wrong_flag_is_told_in_one_line_and_a_hint(miniinfer, plan):
    outcome = miniinfer("run", plan, "--nonesuch")
    words = r"No such option:? '?--nonesuch'?\.?"  # as releases of click put it
    assert re.fullmatch(rf"miniinfer: error: {words}\n  hint: miniinfer run -h lists the flags\n", outcome.err)
    outcome = miniinfer("frobnicate")
    commands = "build, run, tune, profile, compare, report, inspect, devices, serve, template, trtexec, ort-shim, completion"
    assert outcome.err == f"miniinfer: error: No such command 'frobnicate'.\n  hint: the commands are {commands}\n"
    assert outcome.code == 2


def test_quiet_prints_nothing_at_all(miniinfer, plan, tmp_path):
    files = ("--json", tmp_path / "s.json", "--export-times", tmp_path / "t.json", "--output", tmp_path / "y.npz")
    outcome = miniinfer("run", plan, *quick("-q", "--top-k", 1, "--avg-runs", 1, *files))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert all((tmp_path / n).stat().st_size for n in ("s.json", "t.json", "y.npz"))
    outcome = miniinfer("profile", plan, *quick("-q"))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_json_on_standard_output_stands_alone(miniinfer, plan, tmp_path):
    outcome = miniinfer("run", plan, *quick("--top-k", 1, "--avg-runs", 1, "--output", tmp_path / "y.npz", "--json", "-"))
    assert json.loads(outcome.out)["iterations"] == 3


def test_shapes_too_large_for_this_machine(miniinfer, plan):
    outcome = miniinfer("run", plan, *quick("--shapes", "x:9999999999x4"))
    assert outcome.code == 6
    assert re.fullmatch(
        r"miniinfer: error: memory for input 'x' of 9999999999x4: \d+ MiB needed, \d+ MiB free\n  hint: run smaller .*\n",
        outcome.err,
    )


def test_a_profile_says_how_its_sum_compares_with_the_whole(miniinfer, plan):
    outcome = miniinfer("profile", plan, *quick())
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("Sum of the nodes: "))
    total, whole, difference = (float(n) for n in re.findall(r"(-?[\d.]+) ms", line.replace("+", "")))
    assert abs(total - whole - difference) < 0.002
    document = json.loads(miniinfer("profile", plan, *quick("--json", "-")).out)
    assert document["nodes_sum_ms"] == pytest.approx(sum(n["median_ms"] for n in document["nodes"]))


def bf16_plan(folder: Path, names: tuple[str, ...] = ("file", "y")) -> Path:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Neg", ["x"], [n]) for n in names]
    outputs = [value(n, TensorProto.BFLOAT16, [2]) for n in names]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.BFLOAT16, [2])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    miniinfer_cli.build(model, folder / "half.plan")
    return folder / "half.plan"


def test_bf16_goes_in_as_numpy_saves_it_and_comes_out_as_f32_under_any_name(miniinfer, tmp_path):
    np.save(tmp_path / "x.npy", np.array([1.5, -2], numpy_dtype(DType.BF16)))
    flags = ("--input", f"x={tmp_path / 'x.npy'}", "--output", tmp_path / "y.npz")
    outcome = miniinfer("run", bf16_plan(tmp_path), *quick(*flags))
    assert (outcome.code, outcome.err) == (0, "")
    with np.load(tmp_path / "y.npz") as saved:
        assert {n: (saved[n].dtype.name, saved[n].tolist()) for n in saved.files} == dict.fromkeys(
            ("file", "y"), ("float32", [-1.5, 2])
        )


def test_a_full_disk_is_no_usage_error(miniinfer, plan):
    for flag in ("--json", "--export-times", "--output"):
        outcome = miniinfer("run", plan, *quick(flag, "/dev/full"))
        assert (outcome.code, outcome.err) == (
            6,
            "miniinfer: error: /dev/full: the disk is full\n  hint: free space on that disk, or give a path on another\n",
        ), flag


def test_an_input_given_twice_or_by_a_folder(miniinfer, plan, tmp_path):
    np.save(tmp_path / "x.npy", X)
    given = f"x={tmp_path / 'x.npy'}"
    outcome = miniinfer("run", plan, *quick("--input", given, "--input", given))
    assert outcome.code == 2
    assert outcome.err.endswith("x.npy: the input is given twice\n  hint: leave one of them out\n")
    outcome = miniinfer("run", plan, *quick("--input", f"x={tmp_path}"))
    assert (outcome.code, outcome.err) == (
        2,
        f"miniinfer: error: {tmp_path}: cannot be read: Is a directory\n  hint: give another path, or rights to this one\n",
    )


def test_an_index_out_of_range_names_its_node(miniinfer, tmp_path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "i"], ["y"], name="look_up")], "g",
        [value("table", TensorProto.FLOAT, [4]), value("i", TensorProto.INT64, ["n"])], [value("y", TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    miniinfer_cli.build(model, tmp_path / "m.plan")
    np.save(tmp_path / "i.npy", np.array([0, 99]))
    outcome = miniinfer("run", tmp_path / "m.plan", *quick("--input", f"i={tmp_path / 'i.npy'}"))
    assert outcome.code == 2
    assert outcome.err.startswith("miniinfer: error: node 'look_up': Gather")
    assert "99" in outcome.err


def test_what_is_measured_of_a_plan_with_states_is_told(miniinfer, tmp_path):
    nodes = [helper.make_node("Add", ["x", "h"], ["hn"]), helper.make_node("Relu", ["hn"], ["y"])]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in names] for names in (("x", "h"), ("y", "hn"))]
    model = helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    plan = tmp_path / "m.plan"
    for state in (["h:hn"], []):
        miniinfer_cli.build(model, plan, state=state)
        outcome = miniinfer("run", plan, "--device", "cpu", "--duration", "0", "--iterations", "1", "--warmup", "0")
        assert outcome.code == 0, outcome.err
        told = "note: every inference that is measured is the first of its context: states are zeros, caches hold no rows"
        assert (told in outcome.out.splitlines()) == bool(state)
