"""The demo: builds, runs, prints the accuracy, and fails when the answers are wrong or a command fails."""

from pathlib import Path

import numpy as np

from sample_models.demo import FOLDER, demo


def test_demo_recognises_the_digits(tmp_path: Path, capfd):
    assert demo(FOLDER / "digits.onnx", FOLDER / "digits_test.npz", tmp_path) == 0
    out = capfd.readouterr().out
    assert "$ miniinfer build " in out
    assert "Throughput: " in out
    assert "Accuracy: 356 of 360 held-out images recognised (98.89%; required: 97%)" in out
    assert (tmp_path / "digits.plan").exists()


def test_wrong_answers_fail_the_demo(tmp_path: Path, capfd):
    with np.load(FOLDER / "digits_test.npz") as data:
        labels = data["label"].copy()
        labels[:20] = (labels[:20] + 1) % 10
        np.savez(tmp_path / "wrong.npz", image=data["image"], label=labels)
    assert demo(FOLDER / "digits.onnx", tmp_path / "wrong.npz", tmp_path) == 1
    assert "(93.33%; required: 97%)" in capfd.readouterr().out


def test_a_failing_command_ends_the_demo_with_its_code(tmp_path: Path, capfd):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    assert demo(tmp_path / "broken.onnx", FOLDER / "digits_test.npz", tmp_path) == 3
    assert "miniinfer run" not in capfd.readouterr().out
