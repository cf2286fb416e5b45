"""Memory for bodies: aligned, apart from each other, and given back once nobody holds it."""

import os
import random

import numpy as np
import pytest

from miniinfer_cli.server.bodies import Arena, ArenaBody, Heap


@pytest.fixture
def arena():
    descriptor = os.memfd_create("tests")
    os.truncate(descriptor, 1 << 20)
    yield Arena(descriptor, 1 << 20)
    os.close(descriptor)


def address(memory):
    return np.frombuffer(memory, np.uint8).ctypes.data


def test_what_follows_the_json_is_aligned(arena):
    for bodies in (arena, Heap()):
        for ahead in (0, 1, 63, 64, 311):
            body = bodies.take(50_000, ahead)
            assert len(body.memory) == 50_000
            assert (address(body.memory) + ahead) % 64 == 0


def test_bodies_lie_apart_and_are_found_by_their_addresses(arena):
    chance = random.Random(0)
    held: dict[int, ArenaBody] = {}
    for number in range(400):
        body = arena.take(chance.choice((20_000, 60_000, 130_000)), chance.randrange(500))
        if isinstance(body, ArenaBody):
            body.memory[:] = bytes([number % 251]) * len(body.memory)
            held[number] = body
        while len(held) > chance.randrange(6):
            old, one = held.popitem()
            assert bytes(one.memory) == bytes([old % 251]) * len(one.memory)
            one.hold()
            one.release()
            one.release()
        for one in held.values():
            at = chance.randrange(len(one.memory))
            found, offset = arena.find(address(one.memory[at:]))
            assert found is one
            assert bytes(arena._memory[offset : offset + 1]) == bytes(one.memory[at : at + 1])


def test_small_bodies_and_those_without_room_are_on_the_heap(arena):
    assert not isinstance(arena.take(16_000, 0), ArenaBody)
    taken = [arena.take(300_000, 0) for _ in range(4)]
    assert [isinstance(body, ArenaBody) for body in taken] == [True, True, True, False]
    assert arena.find(address(taken[3].memory)) is None
    taken[1].release()
    again = arena.take(300_000, 7)
    assert (again.offset, isinstance(arena.take(300_000, 0), ArenaBody)) == (taken[1].offset, False)
