"""--batch and --batch-dim: which dimension they set, what inputs become of it, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli import build

QUICK = ("--device", "cpu", "--iterations", 2, "--warmup", 0, "--duration", 0)


def plan_of(folder: Path, *shapes: list[int | str], **options: object) -> Path:
    """A plan with an input for each of the shapes, x0, x1 ..., each of which goes through a Relu."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", [f"x{n}"], [f"y{n}"]) for n in range(len(shapes))],
        "g",
        [info(f"x{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(shapes)],
        [info(f"y{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(shapes)],
    )
    path = folder / "m.plan"
    build(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path, **options)
    return path


def shapes_run(miniinfer, plan: Path, *flags: object) -> list[list[int]]:
    outcome = miniinfer("run", plan, *QUICK, *flags, "--json", "-")
    assert outcome.code == 0, outcome.err
    return [i["shape"] for i in json.loads(outcome.out)["inputs"]]


@pytest.mark.parametrize(
    ("shapes", "flags", "run"),
    [
        ([["n", 4]], (), [[8, 4]]),
        ([["n", 4], ["n", "m"]], (), [[8, 4], [8, 1]]),
        # The first that they share is behind another; a batch that is a number in one of them alone is none.
        ([["time", "n", 4], [1, "n", 2]], (), [[1, 8, 4], [1, 8, 2]]),
        ([["n", "m"], ["n", "m"]], ("--batch-dim", "m"), [[1, 8], [1, 8]]),
        ([["n", 4], ["m", 4]], ("--batch-dim", "m"), [[1, 4], [8, 4]]),
        ([[1, "n"]], ("--batch-dim", "n"), [[1, 8]]),
        ([[8, 4], [8, 2]], (), [[8, 4], [8, 2]]),
        ([["n", "m"], ["m", 2]], ("--shapes", "x0:3x5", "--batch-dim", "n"), None),
        ([["n", 4], ["n", 2], ["m"]], ("--shapes", "x2:5", "--batch-dim", "n"), [[8, 4], [8, 2], [5]]),
    ],
)
def test_the_dimension_that_is_set(miniinfer, tmp_path, shapes, flags, run):
    plan = plan_of(tmp_path, *shapes)
    if run is None:
        assert miniinfer("run", plan, *QUICK, "--batch", 8, *flags).code == 2
    else:
        assert shapes_run(miniinfer, plan, "--batch", 8, *flags) == run


def test_other_sizes_are_at_their_optimum_and_samples_are_counted(miniinfer, tmp_path):
    plan = plan_of(tmp_path, ["time", "n"], ["n", "time"], opt_shapes={"x0": (6, 2)})
    document = json.loads(miniinfer("run", plan, *QUICK, "--batch", 3, "--batch-dim", "n", "--json", "-").out)
    assert [i["shape"] for i in document["inputs"]] == [[6, 3], [3, 6]]
    assert document["batch"] == 3
    assert document["samples_per_second"] == pytest.approx(3 * document["throughput_qps"])
    assert (document["settings"]["batch"], document["settings"]["batch_dim"]) == (3, "n")


def test_profile_takes_one_batch_as_run_does(miniinfer, tmp_path):
    document = json.loads(miniinfer("profile", plan_of(tmp_path, ["n", 4]), *QUICK, "--batch", 5, "--json", "-").out)
    assert (document["kind"], document["batch"], document["inputs"][0]["shape"]) == ("profile", 5, [5, 4])


def test_a_file_of_that_batch_is_taken_and_another_is_refused(miniinfer, tmp_path):
    plan = plan_of(tmp_path, ["n", 4], ["n", 2])
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    given = ("--input", f"x0={tmp_path / 'x.npy'}")
    assert shapes_run(miniinfer, plan, *given, "--batch", 3) == [[3, 4], [3, 2]]
    outcome = miniinfer("run", plan, *QUICK, *given, "--batch", 4)
    assert (outcome.code, outcome.err) == (
        2,
        "miniinfer: error: --batch 4: n is 3 in the file of input 'x0'\n"
        "  hint: leave --batch out, or give a file of that batch\n",
    )


@pytest.mark.parametrize(
    ("shapes", "options", "flags", "message", "hint"),
    [
        ([[1, 4]], {}, ("--batch", 3), "--batch 3: the batch is fixed at 1: x0: f32[1,4]", "leave --batch out"),
        ([[1, "m"]], {}, ("--batch", 3), "the batch is fixed at 1: x0: f32[1,m]", "by --batch-dim: m"),
        ([["n", 4], ["m", 4]], {}, ("--batch", 3), "share no dimension: x0: f32[n,4], x1: f32[m,4]", "--batch-dim: n, m"),
        ([[2, 4], [4, 2]], {}, ("--batch", 3), "the inputs share no dimension", "leave --batch out"),
        ([["n", 4]], {}, ("--batch", 3, "--batch-dim", "k"), "--batch-dim k: no input has a dimension of that name", "are n"),
        ([[2, 4]], {}, ("--batch", 3, "--batch-dim", "k"), "no input has a dimension of that name", "is a number"),
        ([["n", 4]], {}, ("--batch-dim", "n"), "--batch-dim: there is no --batch that would set it", "add --batch N"),
        ([["n", 4]], {}, ("--batch", 3, "--shapes", "x0:3x4"), "--batch 3 and --shapes x0:3x4 both set n", "leave one"),
        ([["n", 4]], {"max_shapes": {"x0": (8, 4)}}, ("--batch", 9), "--batch 9: n is above 8, the largest", "--max-shapes"),
        ([["n", 4]], {"min_shapes": {"x0": (2, 4)}}, ("--batch", 1), "--batch 1: n is below 2, the smallest", "--min-shapes"),
        ([["n", 4]], {}, ("--batch", 0), "0 is not in the range 1<=x<=1073741824.", "lists the flags"),
        ([["n", 4]], {}, ("--batch", "x"), "'x' is not a whole number, nor several as 1,2,4,8", "lists the flags"),
        ([["n", 4]], {}, ("--batch", "1,2"), "--batch: run measures one setting", "miniinfer profile PLAN takes several"),
        ([["n", 4]], {}, ("--streams", "1,2"), "--streams: run measures one setting", "miniinfer profile PLAN takes several"),
        ([["n", 4]], {}, ("--streams", "0"), "0 is not in the range 1<=x<=256.", "lists the flags"),
        ([["n", 4]], {}, ("--streams", "257"), "257 is not in the range 1<=x<=256.", "lists the flags"),
    ],
)  # fmt: skip
def test_what_is_refused(miniinfer, tmp_path, shapes, options, flags, message, hint):
    outcome = miniinfer("run", plan_of(tmp_path, *shapes, **options), *QUICK, *flags)
    assert outcome.code == 2
    first, last = outcome.err.splitlines()
    assert message in first and last.startswith("  hint: ") and hint in last


def test_inputs_without_dimensions_and_plans_without_inputs(miniinfer, tmp_path):
    assert "share no dimension" in miniinfer("run", plan_of(tmp_path, ["n", 4], []), *QUICK, "--batch", 2).err
    graph = helper.make_graph(
        [helper.make_node("RandomNormal", [], ["y"], shape=[2])], "g", [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "r.onnx")
    build(tmp_path / "r.onnx", tmp_path / "r.plan")
    outcome = miniinfer("run", tmp_path / "r.plan", *QUICK, "--batch", 2)
    assert (outcome.code, "share no dimension: there are no inputs" in outcome.err) == (2, True)
