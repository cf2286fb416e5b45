"""Shape arithmetic followed through the references: what inference knows of contents that hold symbolic dimensions."""

import pytest

from miniinfer_cli.ir import symbol
from miniinfer_cli.ir.dims import evaluate, maximum, minimum
from tests.ops.checked import contents

H, W = symbol("h", 1), symbol("w", 1)  # sizes that are known not to be 0
N = symbol("n")  # one that may be


@pytest.mark.parametrize(
    ("op", "inputs", "expected"),
    [
        ("Add", ([H, 2], [1, 3]), [H + 1, 5]),
        ("Sub", ([H], [H]), [0]),
        ("Mul", ([H, 3], [W, W]), [H * W, 3 * W]),
        ("Sum", ([H], [W], [1]), [H + W + 1]),
        ("Div", ([8 * H, 7 * H * W, -7], [4, H, 2]), [2 * H, 7 * W, -3]),
        ("Div", ([H, 1 - H, H], [2, 2, -2]), [H // 2, -((H - 1) // 2), -(H // 2)]),
        ("Mod", ([H, 2 * H, -7], [2, 2, 4]), [H % 2, 0, 1]),
        ("Max", ([H, 1], [0, W], [1, 1]), [H, W]),
        ("Min", ([H, H, 4], [H + W, 0, 3]), [H, 0, 3]),
        ("Neg", ([H, 2],), [-H, -2]),
        ("Abs", ([H, -H, -2],), [H, H, 2]),
        ("Sign", ([H, -H, 0],), [1, -1, 0]),
        ("Relu", ([H, -H],), [H, 0]),
        ("Clip", ([H, -H], 0), [H, 0]),
        ("Equal", ([H, H, H, H + 1, 3], [-1, 0, H, H, 3]), [False, False, True, False, True]),
        ("Greater", ([H, 0, 2], [0, H, 1]), [True, False, True]),
        ("GreaterOrEqual", ([H, 1], [1, W + 1]), [True, False]),
        ("Less", ([H, 0], [1, H]), [False, True]),
        ("LessOrEqual", ([H, H // 2], [H, H]), [True, True]),
        ("Where", ([True, False], [1, 1], [H, W]), [1, W]),
        ("Not", ([True, False],), [False, True]),
        ("Identity", ([H, 2],), [H, 2]),
        ("Relu", ([N, -N],), [N, 0]),
        ("GreaterOrEqual", ([N], [0]), [True]),
        ("Max", ([N, N, H], [0, 1, W]), [N, maximum(N, 1), maximum(H, W)]),
        ("Sign", ([N],), [minimum(N, 1)]),
    ],
)
def test_contents_are_followed(op, inputs, expected):
    assert contents(op, *inputs) == expected


def test_a_quotient_that_changes_its_sign_is_rounded_towards_zero():
    (quotient,) = contents("Div", [H - 3], [2])
    assert [evaluate(quotient, {"h": h}) for h in range(1, 8)] == [-1, 0, 0, 0, 1, 1, 2]


def test_fmod_of_dimensions_has_the_sign_of_the_dividend():
    assert contents("Mod", [-H, -7], [H, 4], fmod=1) == [0, -3]


def test_cast_keeps_dimensions_as_integers_and_tells_them_from_zero():
    assert contents("Cast", [H, 2], to=6) == [H, 2]
    assert contents("Cast", [H, H - H], to=9) == [True, False]


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        ("Equal", ([H], [1]), {}),
        ("Equal", ([N], [0]), {}),
        ("Greater", ([N], [0]), {}),
        ("Less", ([0], [N]), {}),
        ("Cast", ([N],), {"to": 9}),
        ("Equal", ([H], [W]), {}),
        ("Less", ([H], [4]), {}),
        ("Div", ([H], [0]), {}),
        ("Mod", ([H], [0]), {}),
        ("Cast", ([H],), {"to": 1}),
        ("Cast", ([H - 1],), {"to": 9}),
    ],
)
def test_contents_that_hang_on_the_size_are_unknown(op, inputs, attrs):
    assert contents(op, *inputs, **attrs) is None
