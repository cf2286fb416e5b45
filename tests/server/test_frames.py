"""Frames: messages and bytes arrive whole, in their order, however the stream is cut."""

import asyncio
import random

import numpy as np
import pytest

from miniinfer_cli.server.frames import Frames


class Wire:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = b""
        self.closed = False

    def writelines(self, parts):
        self.written += b"".join(bytes(p) for p in parts)

    def close(self):
        self.closed = True


def sent(*frames):
    """The bytes of these messages, and how often the transport was written to."""

    async def send():
        wire = Wire()
        frames_out = Frames(asyncio.get_running_loop(), lambda message, behind: None, lambda: None)
        frames_out.connection_made(wire)
        for message, behind in frames:
            frames_out.send(message, behind)
        assert wire.written == b"", "they leave together, in the next turn of the loop"
        await asyncio.sleep(0)
        written = wire.written
        frames_out.send((9,))
        frames_out.close()
        assert len(wire.written) > len(written) and wire.closed
        return written

    return asyncio.run(send())


@pytest.mark.parametrize("seed", range(20))
def test_messages_arrive_as_they_were_sent_however_the_stream_is_cut(seed):
    chance = random.Random(seed)
    texts = [((n, None, 0.5, "ä" * chance.randrange(40), [b"x", (1, 2)]), bytes(chance.randrange(3000))) for n in range(12)]
    stream = sent(*((message, [behind[:7], behind[7:]]) for message, behind in texts))
    got = []
    frames = Frames(None, lambda message, behind: got.append((message, bytes(behind))), lambda: None)
    at = 0
    while at < len(stream):
        size = chance.choice((1, 3, 8, 9, 100, 5000, 100_000))
        frames.data_received(stream[at : at + size])
        at += size
    assert got == texts


def test_tensors_of_a_frame_in_pieces_lie_aligned():
    stream = sent(((1, "a" * 21), [np.arange(1000.0).tobytes()]))
    got = []
    frames = Frames(None, lambda message, behind: got.append(np.frombuffer(behind, np.float64)), lambda: None)
    frames.data_received(stream[:5])
    frames.data_received(stream[5:])
    assert got[0].flags.aligned
    np.testing.assert_array_equal(got[0], np.arange(1000.0))


def test_the_end_of_a_stream_is_told_and_later_messages_go_nowhere():
    async def end():
        ended = []
        frames = Frames(asyncio.get_running_loop(), lambda message, behind: None, lambda: ended.append(True))
        frames.connection_made(Wire())
        assert frames.is_open
        frames.connection_lost(None)
        frames.send((1,))
        await asyncio.sleep(0)
        assert not frames.is_open
        return ended

    assert asyncio.run(end()) == [True]
