"""A transformer whose products multiply 8 bits, the rest of 16, on the emulated device: its steps, and the CPU's results."""

import numpy as np
import pytest

import miniinfer_cli
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.emulation.engine import open_emulated

_ROWS, _LENGTH, _WORDS = 40, 32, 60
"""More tokens than the kernel for few is the only one for."""


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_a_transformer(format: str) -> None:
    random = np.random.default_rng(0)

    def feeds(rows: int) -> dict[str, np.ndarray]:
        ids = random.integers(0, _WORDS, (rows, _LENGTH))
        mask = (random.random(ids.shape) < 0.9) | (np.arange(_LENGTH) == 0)
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": ids % 2}

    model = generate("bert_base", Request("batch", _LENGTH, small=True), seed=1)
    options = {format: True, "precision": "f16", "calibrate": [feeds(8)], "calibration_method": "minmax"}
    plan, given = miniinfer_cli.build(model, **options), feeds(_ROWS)
    with miniinfer_cli.load(plan, "cpu") as engine:
        wanted = engine.run(given)
    with open_emulated(plan) as engine:
        found = engine.run(given)
        steps = [step.kind for step in engine.program(engine.check(given)).made.steps]
    assert "miniinfer.QuantizedMatMul" in steps and "MatMulInteger" not in steps and "DequantizeLinear" not in steps[:8]
    for name, array in wanted.items():
        assert np.isfinite(found[name]).all()
        assert np.linalg.norm(found[name] - array) < 0.05 * np.linalg.norm(array), name
