"""A plan cut off at every length, and a header cut off at every length in a file that is otherwise right."""

from tests.engine_format.samples import header_of, with_header
from tests.fuzz.opening import Opener


def test_every_truncation_of_a_plan_is_refused(sound: bytes, opener: Opener):
    assert opener.open(sound) == ""
    assert [n for n in range(len(sound)) if not opener.open(sound[:n])] == []


def test_every_truncation_of_a_header_is_refused(sound: bytes, opener: Opener):
    header = header_of(sound)
    refusals = {opener.open(with_header(sound, header[:n])) for n in range(len(header))}
    assert {r.partition(" (byte ")[0] for r in refusals} == {"the header ends in the middle of a value"}
