"""A plan cut off at every length (every third where there is little time), and a header in a file that is otherwise right."""

from tests.engine_format.samples import header_of, with_header
from tests.fuzz.opening import SCALE, Opener


def test_every_truncation_of_a_plan_is_refused(sound: bytes, opener: Opener):
    assert opener.open(sound) == ""
    assert [n for n in range(0, len(sound), 3 if SCALE == 1 else 1) if not opener.open(sound[:n])] == []


def test_every_truncation_of_a_header_is_refused(sound: bytes, opener: Opener):
    header = header_of(sound)
    refusals = {opener.open(with_header(sound, header[:n])) for n in range(len(header))}
    assert {r.partition(" (byte ")[0] for r in refusals} == {"the header ends in the middle of a value"}
