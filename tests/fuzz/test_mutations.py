"""Random damage to a plan, most of it with the header's digest made right afterwards, so that it gets past the door."""

import random
from collections import Counter

import pytest

from tests.engine_format.samples import header_of, with_header
from tests.fuzz.opening import SCALE, Opener

BATCHES, BATCH = 8, 2500 * SCALE
# Bytes that begin a value in msgpack and claim much, and values at the edges of what may be.
TOKENS = [
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdc\xff\xff",
    b"\xde\x00\x00", b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd4\x05\x00", b"\xc1", b"\xc0", b"\xc2", b"\xc3",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xff", b"\x00", b"\x7f", b"\x80", b"\x90", b"\xa0", b"\xa1\xff", b"\xc4\x00",
    b"\x91" * 40, b"\x81\xa1x" * 40, b"\x82\xa1x\x01\xa1x\x02", b"\x81\xa5array", b"\x81\xa4type", b"\xa3str", b"\xa3c64",
]  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """``data`` with one to four small changes."""
    buffer = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(buffer) + 1)
        end = min(len(buffer), at + rng.choice((1, 1, 2, 4, 9, 64)))
        match rng.randrange(7):
            case 0 if at < len(buffer):
                buffer[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(buffer):
                buffer[at] = rng.randrange(256)
            case 2:
                del buffer[at:end]
            case 3:
                buffer[at:at] = rng.choice(TOKENS)
            case 4:
                token = rng.choice(TOKENS)
                buffer[at : at + len(token)] = token
            case 5:
                buffer[at:at] = buffer[at:end]
            case _:
                other = rng.randrange(len(buffer) + 1)
                buffer[at:end] = buffer[other : other + end - at]
    return bytes(buffer)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_damage_is_refused_or_harmless(sound: bytes, opener: Opener, batch: int):
    opener.counting = batch == 0
    rng = random.Random(batch)
    header, seen = header_of(sound), Counter[str]()
    for _ in range(BATCH):
        data = with_header(sound, damaged(header, rng)) if rng.random() < 0.8 else damaged(sound, rng)
        seen[opener.open(data).partition(" (byte ")[0]] += 1
    # Most damage gets past the digest and the syntax, to many different rules; some of it (a letter of a name) is harmless.
    assert len(seen) > BATCH / 20
    assert seen["the header does not match its digest: the file is damaged"] < 0.2 * BATCH
    assert seen["the header ends in the middle of a value"] < 0.4 * BATCH
    assert 0 < seen[""] < 0.4 * BATCH
