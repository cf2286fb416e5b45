"""What trtexec's readers find in the log and in the files is what --exportSummary holds, to six digits."""

import json
import os
import re
import threading

import numpy as np
import pytest

from tests.cli.trtexec import readers
from tests.cli.trtexec.readers import SECONDS, six_digits


def exported(path):
    return json.loads(path.read_text())


def test_readers_find_the_figures_of_the_summary(miniinfer, model, tmp_path):
    summary, times, engine = (tmp_path / name for name in ("s.json", "t.json", "m.engine"))
    flags = ("--iterations=25", "--avgRuns=5", "--percentile=50,99.9", "--shapes=x:3x4")
    outcome = miniinfer(
        "trtexec", f"--onnx={model}", f"--saveEngine={engine}", f"--exportTimes={times}", f"--exportSummary={summary}",
        *flags, *SECONDS,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert readers.passed(outcome.out)
    told = exported(summary)
    assert readers.throughput(outcome.out) == six_digits(told["throughput_qps"])
    compute = told["gpu_compute_time_ms"]
    assert [readers.compute(outcome.out, what) for what in ("mean", "median")] == [
        six_digits(compute["mean"]),
        six_digits(compute["median"]),
    ]
    assert readers.sixteenth_field(outcome.out) == six_digits(compute["mean"])
    rows = {
        "Latency": "latency_ms", "Enqueue Time": "enqueue_time_ms", "H2D Latency": "h2d_latency_ms",
        "GPU Compute Time": "gpu_compute_time_ms", "D2H Latency": "d2h_latency_ms",
    }  # fmt: skip
    for name, key in rows.items():
        assert readers.row(outcome.out, name) == {k: six_digits(v) for k, v in told[key].items()}
        assert list(told[key]) == ["min", "max", "mean", "median", "p50", "p99.9"]
    assert told["latency_ms"] == told["gpu_compute_time_ms"] == told["result"]["latency_ms"]
    assert set(told["h2d_latency_ms"].values()) == {0}
    assert f"Total Host Walltime: {told['total_host_walltime_s']:.6g} s" in readers.prefixed(outcome.out)
    computed = [one["computeMs"] for one in exported(times)]
    assert len(computed) == 25
    assert [one["latencyMs"] for one in exported(times)] == computed
    assert np.mean(computed) == pytest.approx(compute["mean"])
    assert readers.averages(outcome.out) == [six_digits(float(np.mean(computed[i : i + 5]))) for i in range(0, 25, 5)]
    assert told["engine"]["bytes"] == engine.stat().st_size > 0
    assert f"Created engine with size: {six_digits(engine.stat().st_size / 2**20):g} MiB" in readers.prefixed(outcome.out)


def test_points_in_time_are_in_order_and_differ_by_the_durations(miniinfer, plan, tmp_path):
    times = tmp_path / "t.json"
    outcome = miniinfer("trtexec", f"--loadEngine={plan}", "--iterations=8", f"--exportTimes={times}", *SECONDS)
    assert outcome.code == 0, outcome.err
    found = exported(times)
    keys = [f"{end}{part}Ms" for part in ("Enq", "H2d", "Compute", "D2h") for end in ("start", "end")]
    assert [list(one) for one in found] == [[*keys, "h2dMs", "computeMs", "d2hMs", "latencyMs"]] * 8
    for one in found:
        for part in ("H2d", "Compute", "D2h"):
            duration = one[f"{part[0].lower()}{part[1:]}Ms"]
            assert one[f"end{part}Ms"] - one[f"start{part}Ms"] == pytest.approx(duration, abs=1e-6)
        points = [one[key] for key in keys if "Enq" not in key]
        assert one["startEnqMs"] <= points[0] + 1e-6 and points == sorted(points)
    starts = [one["startEnqMs"] for one in found]
    assert starts == sorted(starts) and starts[0] >= 0


def test_the_order_of_the_log(miniinfer, model, tmp_path):
    outcome = miniinfer("trtexec", f"--onnx={model}", f"--saveEngine={tmp_path / 'm'}", "--iterations=10", *SECONDS)
    first, *rest, last = outcome.out.splitlines()
    tail = f"TensorRT.trtexec [TensorRT v101600] [b0] # miniinfer trtexec --onnx={model}"
    assert first.startswith(f"&&&& RUNNING {tail}") and last.startswith(f"&&&& PASSED {tail}")
    assert len(readers.prefixed("\n".join(rest))) == len(rest), "every other line has the prefix"
    places = [
        next(n for n, line in enumerate(rest) if re.search(pattern, line))
        for pattern in (
            "=== Model Options ===", "=== Build Options ===", "=== System Options ===", "=== Inference Options ===",
            "=== Reporting Options ===", "=== Device Information ===", "Selected Device: CPU", "TensorRT version:",
            "Parse time: ",
            "Created engine with size: .* MiB$", "Engine built in .* sec.$", "Loaded engine with size: .* MiB$",
            "Engine deserialized in .* sec.$", "Using random values for input x$", "Starting inference$",
            r"Warmup completed 1 queries over .* ms$", r"Timing trace has 10 queries over .* s$", "=== Trace details ===",
            "Trace averages of 10 runs:$", "Average on 10 runs", "=== Performance summary ===", "Throughput: ", "Latency: min",
            "Enqueue Time: ", "H2D Latency: ", "GPU Compute Time: ", "D2H Latency: ", "Total Host Walltime: ",
            "Total GPU Compute Time: ",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "[W] The sizes of input x are open" in outcome.err


def test_layers_by_name_in_the_table_and_in_three_files(miniinfer, plan, tmp_path):
    profile, layers, output = (tmp_path / name for name in ("p.json", "l.json", "o.json"))
    outcome = miniinfer(
        "trtexec", f"--loadEngine={plan}", "--shapes='x':2x4", "--iterations=4", "--dumpProfile", "--separateProfileRun",
        "--dumpLayerInfo", "--dumpOutput", f"--exportProfile={profile}", f"--exportLayerInfo={layers}",
        f"--exportOutput={output}", *SECONDS,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    lines = readers.prefixed(outcome.out)
    assert "=== Performance summary ===" in lines
    start = lines.index("=== Profile (4 iterations ) ===")
    assert lines[start + 1].split() == ["Time(ms)", "Avg.(ms)", "Median(ms)", "Time(%)", "Layer"]
    table = [line.split() for line in lines[start + 2 : start + 5]]
    count, *timed = exported(profile)
    assert count == {"count": 4}
    assert [r[4] for r in table] == [*(one["name"] for one in timed), "Total"]
    for figures, one in zip(table, timed, strict=False):
        keys = ("timeMs", "averageMs", "medianMs", "percentage")
        assert [float(f) for f in figures[:4]] == pytest.approx([one[key] for key in keys], abs=0.06)
        assert one["timeMs"] == pytest.approx(4 * one["averageMs"])
    assert sum(one["percentage"] for one in timed) == pytest.approx(100)
    described = exported(layers)
    first, second = described["Layers"]
    assert [first["Name"], second["Name"]] == [one["name"] for one in timed]
    assert first["Inputs"] == [
        {"Name": "x", "Location": "Device", "Dimensions": [2, 4], "Format/Datatype": "Row major linear FP32"}
    ]
    assert second["Outputs"][0]["Dimensions"] == [2, 3] and second["Outputs"][0]["Name"] == "y"
    assert first["Weights"] == {"Type": "Float", "Count": 40}
    assert first["Metadata"] == "[ONNX Layer: first]\x1e[ONNX Layer: hidden]"
    assert described["Bindings"] == ["x", "y"]
    tensor = described["I/O Tensors"][0]
    assert (tensor["Name"], tensor["IOMode"], tensor["DataType"], tensor["Dimensions"]) == ("x", "Input", "Float", [-1, 4])
    (computed,) = exported(output)
    assert (computed["name"], computed["dimensions"], len(computed["values"])) == ("y", "2x3", 6)
    place = lines.index("y: (2x3)")
    assert [float(v) for v in " ".join(lines[place + 1 : place + 3]).split()] == pytest.approx(computed["values"], rel=1e-5)


def test_without_a_separate_run_only_layers_are_reported(miniinfer, plan):
    outcome = miniinfer("trtexec", f"--loadEngine={plan}", "--iterations=2", "--dumpProfile", *SECONDS)
    assert outcome.code == 0
    assert "=== Profile (2 iterations ) ===" in outcome.out
    assert "Performance summary" not in outcome.out and "Throughput" not in outcome.out


@pytest.mark.parametrize("ending", ["npy", "bin"])
def test_inputs_are_read_and_outputs_are_what_they_give(miniinfer, plan, tmp_path, ending):
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    file, output = tmp_path / f"x.{ending}", tmp_path / "o.json"
    np.save(file, x) if ending == "npy" else x.tofile(file)
    outcome = miniinfer(
        "trtexec", f"--loadEngine={plan}", f"--loadInputs='x':{file}", f"--exportOutput={output}", "--iterations=1", *SECONDS
    )
    assert outcome.code == 0, outcome.err
    assert f"Using values loaded from {file} for input x" in readers.prefixed(outcome.out)
    saved = tmp_path / "y.npz"
    assert miniinfer("run", plan, "--input", f"x={file}", "--output", saved, "--iterations", 1, "--duration", 0).code == 0
    assert np.array(exported(output)[0]["values"], np.float32).tolist() == np.load(saved)["y"].reshape(-1).tolist()


def test_a_file_that_the_caller_has_open_holds_what_is_written(miniinfer, plan, tmp_path):
    """Polygraphy's runner opens the file of the outputs first."""
    (tmp_path / "o.json").write_text("what was there before, and is longer than what comes" * 50)
    with (tmp_path / "o.json").open() as file:
        outcome = miniinfer("trtexec", f"--loadEngine={plan}", f"--exportOutput={file.name}", "--iterations=1", *SECONDS)
        assert outcome.code == 0, outcome.err
        assert json.load(file)[0]["name"] == "y"


def test_sections_are_read_as_keys_and_values(miniinfer, plan):
    """As tools for engines read them: from a banner on to the first line that has no colon."""
    outcome = miniinfer("trtexec", f"--loadEngine={plan}", "--iterations=3", "--device=cpu", *SECONDS)
    lines = readers.prefixed(outcome.out)

    def section(title: str) -> dict[str, str]:
        rest = lines[lines.index(f"=== {title} ===") + 1 :]
        rows = [line.partition(":") for line in rest]
        until = next(n for n, (_, colon, _) in enumerate(rows) if not colon)
        return {key: value.strip() for key, _, value in rows[:until]}

    assert section("Build Options")["Load engine"] == str(plan)
    assert section("Inference Options")["Iterations"] == "3"
    assert section("Device Information")["Selected Device"].startswith("CPU ")
    assert list(section("Performance summary")) == [
        "Throughput", "Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency", "Total Host Walltime",
        "Total GPU Compute Time",
    ]  # fmt: skip
    assert [float(f.split("=")[1].split()[0]) for f in section("Performance summary")["Latency"].split(",")]


def test_the_version_of_a_plan(miniinfer, plan):
    outcome = miniinfer("trtexec", f"--loadEngine={plan}", "--getPlanVersionOnly")
    assert outcome.code == 0
    assert [line.partition(": ")[0] for line in readers.prefixed(outcome.out)] == ["Plan was created by"]


def test_sizes_that_a_plan_has_bounds_for_are_not_warned_of(miniinfer, model):
    bounds = ("--minShapes=x:1x4", "--optShapes=x:1x4", "--maxShapes=x:8x4")
    outcome = miniinfer("trtexec", f"--onnx={model}", *bounds, "--iterations=1", *SECONDS)
    assert outcome.code == 0 and "are open" not in outcome.err
    assert "Input binding for x with dimensions 1x4 is created." in readers.prefixed(outcome.out)


def test_a_model_comes_through_a_pipe_and_is_read_once(miniinfer, model, tmp_path):
    pipe, contents = tmp_path / "pipe.onnx", model.read_bytes()
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(contents))
    writer.start()
    flags = (f"--saveEngine={tmp_path / 'm.plan'}", "--shapes=*:2x4", "--iterations=1", *SECONDS)  # * takes a look at the inputs
    outcome = miniinfer("trtexec", f"--onnx={pipe}", *flags)
    writer.join()
    assert outcome.code == 0, outcome.err
    assert "Input binding for x with dimensions 2x4 is created." in readers.prefixed(outcome.out)
