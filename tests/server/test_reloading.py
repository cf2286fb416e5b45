"""A plan is taken again from its file while it serves: whoever waits is answered by the old one, who comes later by the new."""

import asyncio
import threading

import pytest

from miniinfer_cli.server.reloading import Reloader
from tests.server.asking import MODEL, application, ask, body_of, repository_of, write_model

INFER = "/v2/models/m/infer"
OTHER = MODEL.replace("[0.0, 0.25, 0.5, 0.75]", "[100.0, 100.25, 100.5, 100.75]")


@pytest.fixture
def path(tmp_path):
    return write_model(tmp_path / "m.plan")


@pytest.fixture
def repository(path):
    repository = repository_of(path)
    yield repository
    repository.close()


def first_of(answer):
    return answer.json["outputs"][0]["data"][0]


def test_requests_under_way_end_on_the_old_plan_and_later_ones_on_the_new(repository, path):
    app, told = application(repository, limits={}), []
    reloader = Reloader(repository, told.append)
    served = repository.find("m")
    old = served.current
    gate = threading.Event()
    real = old.engine.model.make_program

    def held(*args):
        assert gate.wait(20)
        return real(*args)

    old.engine.model.make_program = held

    async def go():
        waiting = [asyncio.create_task(ask(app, INFER, body_of(n))) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        while served.totals().running + served.totals().queued < 3:
            await asyncio.sleep(0.001)
        await reloader.reload()
        assert served.current is old, "nothing has changed yet"
        write_model(path, OTHER)
        await reloader.reload()
        assert served.current is not old
        later = await ask(app, INFER, body_of(2))
        in_between = served.totals()
        gate.set()
        before = await asyncio.gather(*waiting)
        await reloader.finish()
        return before, later, in_between

    before, later, in_between = asyncio.run(go())
    assert [first_of(a) for a in before] == [1.25, 2.5, 3.75]
    assert first_of(later) == 102.5
    assert in_between.batches == 1
    assert in_between.running + in_between.queued == 3
    totals = served.totals()
    assert (totals.rows, totals.running, totals.queued, sum(n * c for n, c in totals.by_rows.items())) == (4, 0, 0, 4)
    assert served.figures.outcomes["result"] == 4
    assert served.figures.reloads == {"result": 1, "error": 0}
    assert told == ["m, version 1: the new plan serves"]
    assert "closed" in repr(old.engine)


def test_a_plan_that_does_not_open_leaves_the_old_one_in_its_place(repository, path):
    app, told = application(repository, limits={}), []
    reloader = Reloader(repository, told.append)

    async def go():
        contents = path.read_bytes()
        for broken in (b"no plan", contents[:-1]):
            path.with_suffix(".new").write_bytes(broken)
            path.with_suffix(".new").replace(path)
            await reloader.reload()
        await reloader.reload()  # it is the same file as the last time: nothing new to tell
        path.unlink()
        await reloader.reload()
        return await ask(app, INFER, body_of(1))

    assert first_of(asyncio.run(go())) == 1.25
    assert repository.find("m").figures.reloads == {"result": 0, "error": 2}
    assert len(told) == 2
    assert all(line.startswith("m, version 1: the new plan is not taken, the old one serves on: ") for line in told)


def test_a_plan_of_other_inputs_is_taken_and_told_of(repository, path):
    told = []
    reloader = Reloader(repository, told.append)
    write_model(path, "graph main(z: f32[n,2]) {\n  y = Add(z, z)\n  return y\n}")

    async def go():
        await reloader.reload()
        await reloader.finish()

    asyncio.run(go())
    assert told == ["m, version 1: the new plan serves; its inputs or outputs are others than before"]
    assert list(repository.find("m").current.signature.inputs) == ["z"]
