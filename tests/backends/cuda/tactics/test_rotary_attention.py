"""RotaryAttention on the emulated device: by the kernel for sm_90a, and by other operations where that does not reach."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import Rotary
from miniinfer_cli.backends.cuda.tactics.attention.attention_warpgroups import warpgroup_tactics
from miniinfer_cli.ir import DType
from tests.backends.cuda.harness import check_op
from tests.backends.cuda.tactics.every_tactic import check_every_tactic
from tests.backends.cuda.tactics.test_attention_warpgroups import F16, form, heads

NOTHING = (None,) * 4


def test_every_cut_that_turns_heads() -> None:
    operands = heads(1, 4, 40, 32), heads(1, 2, 130, 32), heads(1, 2, 130, 32)
    angles = heads(1, 40, 16), heads(1, 40, 16), None, heads(1, 130, 16), heads(1, 130, 16)
    given = (*operands, *NOTHING, *angles)
    keys = check_every_tactic("RotaryAttention", *given, target=Target(), tolerance=3e-3, domain="miniinfer")
    assert [k.removeprefix("warpgroups ") for k in keys] == [
        *("64x80, 2 ahead in 2 parts", "64x48, 2 ahead in 2 parts", "64x48, 3 ahead in 3 parts", "64x144, 1 ahead"),
        *("64x80, 2 ahead", "64x48, 3 ahead", "64x48, 2 ahead", "128x80, 2 ahead in 2 parts"),
    ]


def test_what_cannot_be_turned() -> None:
    rotary = Rotary(64, False, DType.F16, None, None)
    assert not rotary.fault(form())
    faulty = (replace(rotary, turned=72), replace(rotary, turned=8), replace(rotary, cache=DType.F64))
    assert all(r.fault(form()) for r in faulty) and not replace(rotary, turned=8, interleaved=True).fault(form())
    assert not warpgroup_tactics(form(), Operand.output(0), Target(), rotary=faulty[0])


def apart(dtype: Any = F16) -> Any:
    return [heads(1, 2, 9, 16, dtype=dtype)] * 3


@pytest.mark.parametrize(
    ("operands", "attrs"),
    [
        ((*apart(np.float32), *NOTHING, *(heads(1, 9, 8, dtype=np.float32),) * 2), {}),
        ((*apart(), *NOTHING, *(heads(1, 9, 2),) * 2), {"rotary_embedding_dim": 4}),
        ((*apart(), None, *(heads(1, 2, 5, 16),) * 2, None, *(heads(1, 9, 8),) * 2), {"is_causal": 1}),
        ((*apart(), *NOTHING, *(heads(1, 9, 8, dtype=np.float64),) * 2), {"interleaved": 1}),
    ],
)
def test_other_operations_do_the_rest(operands: Any, attrs: Any) -> None:
    rounded = 2e-3 if operands[0].dtype == F16 else 3e-3
    instead = {"RotaryEmbedding", "Attention"}
    check_op("RotaryAttention", *operands, domain="miniinfer", target=Target(), tolerance=rounded, instead=instead, **attrs)
