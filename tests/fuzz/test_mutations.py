"""Random damage to a plan, most of it with the header's digest made right afterwards, so that it gets past the door."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.engine_format.samples import header_of, with_header
from tests.fuzz.opening import SCALE, Opener

BATCHES, BATCH = 4, 600 * SCALE
# Bytes that begin a value in msgpack and claim much, and values at the edges of what may be.
TOKENS = [
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdc\xff\xff",
    b"\xde\x00\x00", b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd4\x05\x00", b"\xc1", b"\xc0", b"\xc2", b"\xc3",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xff", b"\x00", b"\x7f", b"\x80", b"\x90", b"\xa0", b"\xa1\xff", b"\xc4\x00",
    b"\x91" * 40, b"\x81\xa1x" * 40, b"\x82\xa1x\x01\xa1x\x02", b"\x81\xa5array", b"\x81\xa4type", b"\xa3str", b"\xa3c64",
]  # fmt: skip


# What is done, where, to how much, with what byte, what token, or what stands elsewhere.
Change = tuple[int, float, int, int, bytes, float]


def drawn(rng: random.Random) -> list[Change]:
    """One to four small changes."""
    count = rng.choice((1, 1, 1, 2, 4))
    lengths = (1, 1, 2, 4, 9, 64)
    return [
        (rng.randrange(7), rng.random(), rng.choice(lengths), rng.randrange(256), rng.choice(TOKENS), rng.random())
        for _ in range(count)
    ]


def damaged(data: bytes, changes: list[Change]) -> bytes:
    """``data`` with the changes."""
    buffer = bytearray(data)
    for form, place, length, byte, token, elsewhere in changes:
        at = int(place * (len(buffer) + 1))
        end = min(len(buffer), at + length)
        match form:
            case 0 if at < len(buffer):
                buffer[at] ^= 1 << byte % 8
            case 1 if at < len(buffer):
                buffer[at] = byte
            case 2:
                del buffer[at:end]
            case 3:
                buffer[at:at] = token
            case 4:
                buffer[at : at + len(token)] = token
            case 5:
                buffer[at:at] = buffer[at:end]
            case _:
                other = int(elsewhere * (len(buffer) + 1))
                buffer[at:end] = buffer[other : other + end - at]
    return bytes(buffer)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_damage_is_refused_or_harmless(sound: bytes, opener: Opener, batch: int):
    """No property of hypothesis, which would draw a tenth as many: a case has few changes, and of these the least are told."""
    opener.counting = batch == 0
    rng = random.Random(batch)
    header, seen = header_of(sound), Counter[str]()

    def opened(changes: list[Change], in_header: bool) -> str:
        return opener.open(with_header(sound, damaged(header, changes)) if in_header else damaged(sound, changes))

    for number in range(BATCH):
        changes, in_header = drawn(rng), rng.random() < 0.8
        try:
            refusal = opened(changes, in_header)
        except Exception as error:
            least = _least(changes, lambda fewer, where=in_header: opened(fewer, where))
            pytest.fail(f"seed {batch}, case {number}, of the {'header' if in_header else 'file'}: {least}: {error!r}")
        seen[refusal.partition(" (byte ")[0]] += 1
    # Most damage gets past the digest and the syntax, to many different rules; some of it (a letter of a name) is harmless.
    assert len(seen) > BATCH / 20
    assert seen["the header does not match its digest: the file is damaged"] < 0.2 * BATCH
    assert seen["the header ends in the middle of a value"] < 0.4 * BATCH
    assert 0 < seen[""] < 0.4 * BATCH


def _least(changes: list[Change], fails: Callable[[list[Change]], object]) -> list[Change]:
    """The changes without those that are not needed to make it fail."""
    for change in changes:
        fewer = [c for c in changes if c is not change]
        try:
            fails(fewer)
        except Exception:
            changes = fewer
    return changes


def test_of_many_changes_those_that_matter_are_told():
    def fails(changes: list[Change]) -> None:
        assert not {2, 5} <= {change[0] for change in changes}

    many: list[Change] = [(form, 0.5, 1, 0, b"", 0.5) for form in (1, 2, 3, 5)]
    assert _least(many, fails) == [many[1], many[3]]
