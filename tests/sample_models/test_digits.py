"""The committed digits network: small, with the committed test images recognised."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime

FOLDER = Path(__file__).parents[2] / "sample_models"


def test_digits_are_recognised():
    data = np.load(FOLDER / "digits_test.npz")
    session = onnxruntime.InferenceSession(str(FOLDER / "digits.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": data["image"]})
    assert logits.shape == (360, 10)
    assert np.mean(logits.argmax(1) == data["label"]) >= 0.975


def test_test_images_are_as_described():
    data = np.load(FOLDER / "digits_test.npz")
    assert (data["image"].dtype, data["image"].shape) == (np.float32, (360, 1, 8, 8))
    assert (data["image"].min(), data["image"].max()) == (0, 1)
    assert (data["label"].dtype, data["label"].shape) == (np.int64, (360,))
    assert set(data["label"]) == set(range(10))


def test_model_is_valid_small_and_leaves_work_for_the_passes():
    path = FOLDER / "digits.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert path.stat().st_size < 300_000
    ops = [node.op_type for node in model.graph.node]
    assert ops == [
        "Conv", "BatchNormalization", "Relu", "MaxPool", "Conv", "BatchNormalization", "Relu", "MaxPool",
        "Flatten", "Gemm", "Relu", "Gemm",
    ]  # fmt: skip
    learnt = [np.prod(item.dims) for item in model.graph.initializer if "running_" not in item.name]
    assert sum(learnt) == 13_754
