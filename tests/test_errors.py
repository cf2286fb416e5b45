"""The errors that a user may see: each has a way out, of its own or of its class."""

import pytest

from miniinfer_cli import errors
from miniinfer_cli.errors import MiniinferError, ModelError

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MiniinferError) and c is not MiniinferError]


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_raised_without_a_hint_has_that_of_its_class(kind: type[MiniinferError]):
    first, *more = str(kind("what is wrong").at("here")).splitlines()
    assert (first, more) == ("here: what is wrong", [f"  hint: {kind.way_out}"])
    assert str(kind("what is wrong", hint="do that")).splitlines()[1:] == ["  hint: do that"]


def test_a_class_of_errors_without_a_way_out_cannot_be_made():
    with pytest.raises(TypeError, match="Vague has no way_out"):
        type("Vague", (MiniinferError,), {"exit_code": 9})


def test_a_layer_that_knows_more_suggests_what_the_place_did_not():
    vague, clear = ModelError("wrong"), ModelError("wrong", hint="do that")
    vague.suggest("do this")
    clear.suggest("do this")
    assert (vague.hint, clear.hint) == ("do this", "do that")
