"""A front and the process with the plans, both in this one: requests there and answers back, and who looks at bodies how long."""

import asyncio
import json
import os
import socket
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.arrays.registered import host_rows
from miniinfer_cli.devices.registering import Registrar
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.server import front_process, messages
from miniinfer_cli.server.app import Application
from miniinfer_cli.server.bodies import Arena
from miniinfer_cli.server.front import Back
from miniinfer_cli.server.front_process import Front
from miniinfer_cli.server.intake import Intake
from miniinfer_cli.server.messages import FrontSettings
from miniinfer_cli.server.office import Office
from miniinfer_cli.server.settings import Connections, HttpLimits
from tests.emulation.device import EmulatedDevice
from tests.server.asking import ask, repository_of, write_model

INFER = "/v2/models/m/infer"
WIDE = 5000


class Incoming:
    """A request whose body lies in the arena; see app.Incoming."""

    is_whole, is_too_large = True, False

    def __init__(self, arena, body, ahead):
        self.is_lost = False
        self._on_lost = None
        self._taken = arena.take(len(body), ahead)
        self._taken.memory[:] = body

    def watch(self, on_lost):
        self._on_lost = on_lost

    def body(self):
        return self._taken.memory

    def leave(self):
        self.is_lost = True
        self._on_lost()

    def release(self):
        self._taken.release()


def wide(number, **parameters):
    x, k = np.full((1, WIDE), number, np.float32), np.array([[number % 4]])
    inputs = [
        {"name": n, "datatype": t, "shape": list(a.shape), "parameters": {"binary_data_size": a.nbytes}}
        for n, t, a in (("x", "FP32", x), ("k", "INT64", k))
    ]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True, **parameters}}).encode()
    return text + x.tobytes() + k.tobytes(), len(text)


class Pair:
    """Both ends, in one loop."""

    def __init__(self, repository, monkeypatch):
        self._repository = repository
        self._monkeypatch = monkeypatch

    async def open(self):
        loop = asyncio.get_running_loop()
        given = []

        def start(command, *, pass_fds, **options):
            given.extend([os.dup(fd) for fd in pass_fds])
            return SimpleNamespace(poll=lambda: None)

        self._monkeypatch.setattr(front_process.subprocess, "Popen", start)
        settings = FrontSettings(HttpLimits(), Connections(), False, 1 << 20, 1 << 19)
        self.device = EmulatedDevice()
        registrar = Registrar(self.device)
        self.tasks = []
        shared = SimpleNamespace(
            settings=settings,
            regions=None,
            register=lambda memory: registrar.register(memory).data,
            plans=list(self._repository),
            office=Office(self._repository, Counter(), None),
            keep=lambda work: self.tasks.append(asyncio.ensure_future(work)),
            lost=lambda front: None,
            intake=Intake(loop),
            tell_broken=lambda: self.front.tell_broken(),
        )
        self.front = Front(shared, loop)
        link, connections, arena = given
        self.arena = Arena(arena, 1 << 20)
        os.close(arena)
        socket.socket(fileno=connections).close()
        self.back = Back(loop, socket.socket(fileno=link), self.arena)
        opening = asyncio.ensure_future(self.front.open())
        found = await self.back.open()
        self.back.ready()
        await opening
        self.app = Application(self.back.plans, self.back, limits=found.limits, statuses=self.back.statuses)
        self.back.app = self.app

    async def ask(self, number, incoming=None, **parameters):
        body, ahead = wide(number, **parameters)
        incoming = incoming or Incoming(self.arena, body, ahead)
        headers = [("inference-header-content-length", str(ahead))]
        try:
            return await ask(self.app, INFER, b"", headers=headers, incoming=incoming)
        finally:
            incoming.release()

    @property
    def held(self):
        return len(self.arena._bodies)

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def repository(tmp_path):
    repository = repository_of(write_model(tmp_path / "m.plan"))
    yield repository
    repository.close()


@pytest.fixture
def gate(repository):
    """The one thread that computes stands still, in its first batch, until this is set."""
    gate, plan = threading.Event(), repository.find("m").current
    real = plan.engine.model.make_program

    def held(*args):
        assert gate.wait(20)
        return real(*args)

    plan.engine.model.make_program = held
    return gate


def run(work, repository, monkeypatch):
    async def whole():
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
        pair = Pair(repository, monkeypatch)
        await pair.open()
        await work(pair)
        pair.back.close()
        await pair.until(lambda: not pair.front._frames.is_open)
        await asyncio.gather(*pair.tasks)
        assert faults == []

    asyncio.run(whole())


def test_answers_come_back_and_bodies_are_given_back(repository, monkeypatch):
    async def work(pair):
        answers = await asyncio.gather(*(pair.ask(n) for n in range(8)))
        for n, answer in enumerate(answers):
            assert answer.status == 200
            at = int(answer.headers["inference-header-content-length"])
            y = np.frombuffer(answer.body[at : at + 4 * WIDE], np.float32)
            np.testing.assert_array_equal(y, np.full(WIDE, n + 0.25 * (n % 4), np.float32))
        assert pair.held == 0
        assert pair.back.plans.find("m").figures.outcomes["result"] == 8
        assert (await ask(pair.app, "/metrics")).status == 200

    run(work, repository, monkeypatch)


def test_bodies_lie_in_registered_memory_while_there_is_room(repository, monkeypatch):
    async def work(pair):
        submitted = []
        plan = repository.find("m").current
        real = plan.submit_all
        monkeypatch.setattr(plan, "submit_all", lambda asked, told: (submitted.extend(asked), real(asked, told))[1])
        assert list(pair.device.registered.values()) == [1 << 19]
        fill = [pair.arena.take(400_000, 0)]
        answers = await asyncio.gather(*(pair.ask(n) for n in range(3)))
        assert [a.status for a in answers] == [200] * 3
        there = [host_rows([asked.inputs["x"]]) is not None for asked in submitted]
        assert there == [True, False, False]  # of each 64 KiB behind the first 448
        for body in fill:
            body.release()

    run(work, repository, monkeypatch)


def test_the_body_of_who_goes_stays_until_nobody_puts_its_batch_together(repository, gate, monkeypatch):
    async def work(pair):
        body, ahead = wide(1)
        incoming = Incoming(pair.arena, body, ahead)
        asking = asyncio.ensure_future(pair.ask(1, incoming))
        await pair.until(lambda: repository.find("m").totals().running == 1)
        incoming.leave()
        assert (await asking).status == 0
        late = await pair.ask(2, timeout=1000)
        assert (late.status, pair.back.plans.find("m").figures.outcomes["cancelled"]) == (504, 1)
        await pair.until(lambda: repository.find("m").totals().queued == 0)
        await asyncio.sleep(0.02)
        assert pair.held == 1, "the second never reached a batch"
        gate.set()
        await pair.until(lambda: pair.held == 0)

    run(work, repository, monkeypatch)


def test_who_goes_in_the_turn_in_which_it_came_is_not_computed(repository, gate, monkeypatch):
    async def work(pair):
        totals = repository.find("m").totals
        first = asyncio.ensure_future(pair.ask(0))
        await pair.until(lambda: totals().running == 1)
        body, ahead = wide(1)
        incoming = Incoming(pair.arena, body, ahead)
        second = asyncio.ensure_future(pair.ask(1, incoming))
        await pair.until(lambda: pair.back._requests.keys() >= {0, 1})
        incoming.leave()  # both messages leave in one write
        assert (await second).status == 0
        await pair.until(lambda: pair.held == 1)
        assert repository.find("m").current.stats()["requests"]["cancelled"] == 1
        gate.set()
        assert (await first).status == 200

    run(work, repository, monkeypatch)


def test_who_goes_as_its_answer_is_told_takes_nobody_elses(repository, gate, monkeypatch):
    async def work(pair):
        totals = repository.find("m").totals
        asking = [asyncio.ensure_future(pair.ask(0))]
        await pair.until(lambda: totals().running == 1)
        asking += [asyncio.ensure_future(pair.ask(n)) for n in (1, 2, 3)]
        await pair.until(lambda: totals().queued == 3)
        batch = list(pair.front._under_way.values())[1:]
        gate.set()
        while not all(one.future.done() for one in batch):
            time.sleep(0.001)  # and not the loop, which is to tell them next
        second = batch[1]
        pair.front._take((messages.CANCEL, second._number), memoryview(b""))
        pair.back._requests[second._number].end((second._number, 499, "gone", "cancelled"))
        answers = await asyncio.gather(*asking)
        assert sorted(a.status for a in answers) == [200, 200, 200, 499]
        await pair.until(lambda: pair.held == 0)

    run(work, repository, monkeypatch)


def test_a_request_that_is_refused_at_once_gives_its_body_back(repository, monkeypatch):
    async def work(pair):
        assert (await pair.ask(1, priority=9)).status == 400
        repository.find("m").current._batcher.close()
        refused = await pair.ask(1)
        assert (refused.status, refused.json) == (503, {"error": "the batcher is closed"})
        await pair.until(lambda: pair.held == 0)

    run(work, repository, monkeypatch)


def test_a_device_that_fails_is_told_to_the_front(repository, monkeypatch):
    def fail(*args):
        raise DeviceError("cuda:0: an illegal memory access was encountered")

    async def work(pair):
        monkeypatch.setattr(repository.find("m").current, "submit_all", fail)
        assert (await ask(pair.app, "/v2/health/live")).status == 200
        assert (await pair.ask(1)).status == 500
        await pair.until(lambda: pair.app.broken)
        assert (await ask(pair.app, "/v2/health/live")).status == 503

    run(work, repository, monkeypatch)
