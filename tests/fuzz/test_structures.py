"""Well-formed headers with anything at all in one or two of their places."""

import copy
from functools import reduce
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine_format.samples import document_of, edited, with_header
from tests.fuzz.opening import SCALE, Opener

Path = tuple[Any, ...]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-2, 20)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20)
    | st.sampled_from(["tensor", "sequence", "map", "f32", "i4", "str", "array", "type", "batch", "floor((a)/(b))", "kernel"])
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6
)
# A place, as a number, and what is put there: a value, or (as a number) what stands at another place.
EDITS = st.lists(st.tuples(st.integers(0, 2**20), VALUES | st.tuples(st.integers(0, 2**20))), min_size=1, max_size=2)


def places(value: Any, path: Path = ()) -> list[Path]:
    """The path of everything in ``value``."""
    keys = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    return [place for key in keys for place in ((*path, key), *places(value[key], (*path, key)))]


def follow(document: Any, path: Path) -> Any:
    return reduce(lambda value, step: value[step], path, document)


def replace(document: Any, path: Path, value: Any) -> None:
    follow(document, path[:-1])[path[-1]] = copy.deepcopy(value)


@settings(max_examples=150 * SCALE, derandomize=SCALE == 1, database=None, suppress_health_check=list(HealthCheck))
@given(edits=EDITS)
def test_anything_anywhere_is_refused_or_harmless(sound: bytes, opener: Opener, edits: list[tuple[int, Any]]):
    def edit(document: dict[str, Any]) -> None:
        for number, value in edits:
            paths = places(document)
            new = follow(document, paths[value[0] % len(paths)]) if isinstance(value, tuple) else value
            replace(document, paths[number % len(paths)], new)

    opener.open(edited(sound, edit))


def test_parts_in_each_others_places_are_refused_or_harmless(sound: bytes, opener: Opener):
    """What is right in one place has the form that is expected in another more often than anything random."""
    document = document_of(sound)
    paths, refusals = places(document), set[str]()
    number = st.integers(0, len(paths) - 1)

    @settings(max_examples=400 * SCALE, derandomize=SCALE == 1, database=None, suppress_health_check=list(HealthCheck))
    @given(number, number)
    def check(target: int, source: int) -> None:
        refusals.add(opener.open(edited(sound, lambda h: replace(h, paths[target], follow(document, paths[source])))))

    check()
    assert len(refusals) > 150


def test_long_lists_of_little_take_little_memory(sound: bytes, opener: Opener):
    """What takes the most room for its bytes: empty maps, empty lists, short texts."""
    opener.counting = True
    for item in ({}, [], "", 1, None, b"", 1.5):
        for place in ("options", "types", "passes"):
            refusal = opener.open(edited(sound, lambda h, i=item, p=place: h.__setitem__(p, {"x": [i] * 20_000})))
            assert bool(refusal) == (place != "options" or item == b"")


@pytest.mark.parametrize("depth", [100, 1000, 1023])
def test_lists_that_claim_more_than_there_is_take_no_memory(sound: bytes, opener: Opener, depth: int):
    opener.counting = True
    header = b"\xdd\x00\x0f\xff\xff" * depth + bytes(1 << 20)
    assert "in the middle of a value" in opener.open(with_header(sound, header))
