"""Optional, OptionalGetElement, OptionalHasElement."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, OptionalType, SequenceType, TensorType
from miniinfer_cli.ops import lookup
from tests.ops.checked import infer

TENSOR = TensorType(DType.F32, (2,))
X = np.ones(2, np.float32)


def run(op, *inputs, **attrs):
    (result,) = lookup("", op).evaluate(inputs, attrs, n_outputs=1)
    return result


def test_a_value_or_nothing():
    assert run("Optional", X) is X
    assert run("Optional", type=TENSOR) is None
    assert run("OptionalGetElement", X) is X
    assert run("OptionalHasElement", X)
    assert not run("OptionalHasElement", None)
    assert not run("OptionalHasElement")
    with pytest.raises(ModelError, match="optional without an element"):
        run("OptionalGetElement", None)


def test_types():
    assert infer("Optional", TENSOR) == OptionalType(TENSOR)
    assert infer("Optional", type=SequenceType(TENSOR)) == OptionalType(SequenceType(TENSOR))
    assert infer("OptionalGetElement", OptionalType(TENSOR)) == TENSOR
    assert infer("OptionalGetElement", SequenceType(TENSOR)) == SequenceType(TENSOR)
    assert infer("OptionalHasElement", OptionalType(TENSOR)) == TensorType(DType.BOOL, ())
    with pytest.raises(ModelError, match="neither an input nor a type"):
        infer("Optional")


def test_presence_is_known_ahead_for_what_is_no_optional():
    assert infer("OptionalHasElement", TENSOR).known.item() is True
    assert infer("OptionalHasElement", SequenceType(TENSOR)).known.item() is True
    assert infer("OptionalHasElement").known.item() is False
    assert infer("OptionalHasElement", OptionalType(TENSOR)).known is None
