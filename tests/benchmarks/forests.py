"""A forest of decision trees on the CPU beside ONNX Runtime: both in one process, in turns, one thread each; medians.

    python -m tests.benchmarks.forests [--trees 100] [--depth 6] [--rows 1 2000] [--runs 15]

Results are compared before anything is timed. Row by row, in Python, 2000 rows took 400 times as long.
"""

import argparse
import statistics

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

import miniinfer_cli
from tests.benchmarks.cpu import timed

FEATURES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2000])
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    model = forest(rng, options.trees, options.depth)
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options, providers=["CPUExecutionProvider"])
    print(f"{'rows':>8}{'ours ms':>10}{'ort ms':>10}{'ratio':>8}")
    with miniinfer_cli.load(miniinfer_cli.build(model), device="cpu", threads=1) as engine:
        for rows in options.rows:
            feeds = {"x": rng.normal(size=(rows, FEATURES)).astype(np.float32)}
            np.testing.assert_allclose(engine.run(feeds)["y"], session.run(None, feeds)[0], rtol=1e-5, atol=1e-5)
            ours, theirs = [], []
            for _ in range(options.runs):
                theirs.append(timed(lambda given=feeds: session.run(None, given)))
                ours.append(timed(lambda given=feeds: engine.run(given)))
            one, other = statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3
            print(f"{rows:>8}{one:>10.3f}{other:>10.3f}{one / other:>8.2f}")


def forest(rng: np.random.Generator, trees: int, depth: int) -> onnx.ModelProto:
    """Full trees of ``depth`` comparisons each, whose leaves have one weight."""
    inner, total = 2**depth - 1, 2 ** (depth + 1) - 1
    each = np.tile(np.arange(total), trees)
    is_inner = each < inner
    attrs = {
        "nodes_treeids": np.repeat(np.arange(trees), total),
        "nodes_nodeids": each,
        "nodes_featureids": rng.integers(0, FEATURES, trees * total),
        "nodes_values": rng.normal(size=trees * total).astype(np.float32),
        "nodes_truenodeids": np.where(is_inner, 2 * each + 1, 0),
        "nodes_falsenodeids": np.where(is_inner, 2 * each + 2, 0),
        "target_treeids": np.repeat(np.arange(trees), total - inner),
        "target_nodeids": np.tile(np.arange(inner, total), trees),
        "target_ids": np.zeros(trees * (total - inner), np.int64),
        "target_weights": rng.normal(size=trees * (total - inner)).astype(np.float32),
    }
    modes = np.where(is_inner, "BRANCH_LEQ", "LEAF").tolist()
    lists = {name: a.tolist() for name, a in attrs.items()}
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", nodes_modes=modes, n_targets=1, **lists)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(helper.make_graph([node], "forest", [x], [y]), opset_imports=opsets, ir_version=8)


if __name__ == "__main__":
    main()
