"""What adapters of servers share: plans that answer, faults as a client is told of them, arrays for JSON."""

import asyncio
import json

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.errors import DeadlinePassed, QueueFull, UsageError
from miniinfer_cli.integrations.requests import infer, open_served, status_of, to_lists, with_texts
from miniinfer_cli.wording import Wording
from tests.emulation.engine import plan_of

BATCHED = "graph main(x: f32[n,3]) {\n  y = Add(x, x)\n  return y\n}"
ALONE = "graph main(x: f32[n,n]) {\n  y = Add(x, x)\n  return y\n}"


@pytest.mark.parametrize(("text", "shape"), [(BATCHED, (2, 3)), (ALONE, (4, 4))])
def test_a_plan_answers_with_and_without_a_batch(text, shape):
    opened = open_served(plan_of(text), "cpu", None, 0.5, {"threads": 1})
    try:
        given = [np.full(shape, n, np.float32) for n in range(9)]

        async def ask():
            return await asyncio.gather(
                *(infer(opened, {"x": x}) for x in given), infer(opened, {"x": [1]}), return_exceptions=True
            )

        *answers, wrong = asyncio.run(ask())
        for x, answer in zip(given, answers, strict=True):
            np.testing.assert_array_equal(answer["y"], 2 * x)
        assert isinstance(wrong, UsageError) and status_of(wrong)[0] == 400
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UsageError("input 'x': wrong", hint="give another"), 400, "input 'x': wrong (give another)"),
        (QueueFull("9 requests wait already"), 503, "9 requests wait already"),
        (DeadlinePassed("its time was over"), 504, "its time was over"),
        (ZeroDivisionError("secret"), 500, ""),
        (
            UsageError(Wording("max_batch: 9", flags="--max-batch: 9"), hint=Wording("pad=", flags="--pad")),
            400,
            "max_batch: 9 (pad=)",
        ),
    ],
)
def test_a_client_is_told_of_its_own_faults(error, status, told):
    assert status_of(error) == (status, told)


def test_arrays_become_lists_that_json_has():
    outputs = {
        "a": np.array([[1, 2]], np.int8),
        "b": np.array([0.5], ml_dtypes.bfloat16),
        "c": np.array(["ä"], object),
        "d": True,
    }
    assert json.loads(json.dumps(to_lists(outputs))) == {"a": [[1, 2]], "b": [0.5], "c": ["ä"], "d": True}


def test_bytes_become_text():
    given = np.array([[b"\xc3\xa4", "b"]], object)
    assert with_texts(given).tolist() == [["ä", "b"]]
    numbers = np.ones(2)
    assert with_texts(numbers) is numbers
    with pytest.raises(UsageError, match="a text is no UTF-8: "):
        with_texts(np.array([b"\xff"], object))
