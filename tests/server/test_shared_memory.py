"""Regions of shared memory: registered, read, written; and nothing taken that is no shared memory of the server's own user."""

import asyncio
import json
import os

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.arrays.registered import host_rows
from miniinfer_cli.devices.registering import Registrar
from miniinfer_cli.server.faults import Refused
from miniinfer_cli.server.shared_memory import Regions
from tests.emulation.device import EmulatedDevice
from tests.server.asking import application, ask, repository_of, write_model


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm"


def register(regions, name="r", **asked):
    return regions.answer("POST", ["region", name, "register"], json.dumps({"offset": 0, **asked}).encode())


def test_regions_are_registered_until_no_request_looks_at_them(tmp_path, folder):
    """A batch that a GPU copies from there may be under way when its client lets the region go."""
    repository = repository_of(write_model(tmp_path / "m.plan"))
    tensor = next(iter(next(iter(repository)).current.signature.inputs.values()))
    repository.close()
    device = EmulatedDevice()
    regions = Regions(folder, Registrar(device))
    (folder / "large").write_bytes(bytes(range(256)) * 256)
    (folder / "small").write_bytes(bytes(256))
    register(regions, key="large", offset=64, byte_size=60000)
    register(regions, name="few", key="small", byte_size=256)
    assert sum(device.registered.values()) == 60064  # of the second there are too few bytes
    count = 10000 // tensor.dtype.itemsize
    array = regions.tensor("x", tensor, (1, count), ("r", 64, count * tensor.dtype.itemsize))
    assert array.view(np.uint8).reshape(-1)[:3].tolist() == [128, 129, 130]
    assert host_rows([array]) is not None
    regions.answer("POST", ["region", "r", "unregister"], b"")
    assert device.registered and host_rows([array]) is not None
    del array
    assert not device.registered
    few = regions.tensor("x", tensor, (1, 2), ("few", 0, 2 * tensor.dtype.itemsize))
    assert host_rows([few]) is None
    register(regions, key="large", byte_size=65536)
    regions.answer("POST", ["unregister"], b"")
    assert not device.registered


def test_tensors_come_from_a_region_and_go_to_one(tmp_path, folder):
    repository = repository_of(write_model(tmp_path / "m.plan"))
    app = application(repository, limits={}, regions=Regions(folder))
    memory = folder / "mine"
    memory.write_bytes(b"\xff" * 8 + np.array([[1, 2]], "<f4").tobytes() + np.array([[3]], "<i8").tobytes() + b"\xff" * 16)

    def placed(name, datatype, shape, offset, nbytes):
        where = {"shared_memory_region": "r", "shared_memory_offset": offset, "shared_memory_byte_size": nbytes}
        return {"name": name, "datatype": datatype, "shape": shape, "parameters": where}

    async def go(out_nbytes):
        inputs = [placed("x", "FP32", [1, 2], 0, 8), placed("k", "INT64", [1, 1], 8, 8)]
        outputs = [{k: v for k, v in placed("y", "", [], 16, out_nbytes).items() if k in ("name", "parameters")}, {"name": "k"}]
        return await ask(app, "/v2/models/m/infer", json.dumps({"inputs": inputs, "outputs": outputs}).encode())

    async def all_of_it():
        asked = json.dumps({"key": "/mine", "offset": 8, "byte_size": 32}).encode()
        registered = await ask(app, "/v2/systemsharedmemory/region/r/register", asked)
        answers = [await go(8), await go(7)]
        status = await ask(app, "/v2/systemsharedmemory/region/r/status")
        gone = await ask(app, "/v2/systemsharedmemory/region/r/unregister", b"")
        return registered, answers, status, gone, await go(8)

    registered, (answered, too_small), status, gone, after = asyncio.run(all_of_it())
    repository.close()
    assert (registered.status, registered.body, gone.status) == (200, b"", 200)
    assert status.json == [{"name": "r", "key": "/mine", "offset": 8, "byte_size": 32}]
    assert answered.status == 200
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    assert answered.json["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": parameters}
    assert answered.json["outputs"][1]["data"] == [3]
    written = memory.read_bytes()
    np.testing.assert_array_equal(np.frombuffer(written[24:32], "<f4"), [1.75, 2.75])
    assert (written[:8], written[32:]) == (b"\xff" * 8, b"\xff" * 8)
    assert (too_small.status, too_small.json) == (400, {"error": "output 'y' has 8 bytes, and its region 7"})
    assert (after.status, after.json) == (400, {"error": "there is no shared memory region 'r'"})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"key": "../secret", "byte_size": 1}, "key: expected the name of a file in"),
        ({"key": "/a/b", "byte_size": 1}, "key: expected the name of a file in"),
        ({"key": "..", "byte_size": 1}, "key: expected the name of a file in"),
        ({"key": "a\0b", "byte_size": 1}, "key: expected the name of a file in"),
        ({"key": 1, "byte_size": 1}, "key: expected the name of a file in"),
        ({"key": "link", "byte_size": 1}, "key 'link'"),
        ({"key": "folder", "byte_size": 1}, "key 'folder'"),
        ({"key": "pipe", "byte_size": 1}, "is no shared memory of the server's own user"),
        ({"key": "nothing", "byte_size": 1}, "No such file"),
        ({"key": "mine", "byte_size": 17}, "key 'mine' has 16 bytes, not 0 + 17"),
        ({"key": "mine", "byte_size": 1, "offset": -1}, "expected whole numbers"),
        ({"key": "mine", "byte_size": 0}, "expected whole numbers"),
        ({"key": "mine", "byte_size": 1 << 70}, "not 0 + "),
        ({"key": "mine"}, "expected a JSON object with key, offset and byte_size"),
    ],
)
def test_what_is_no_shared_memory_is_refused(folder, asked, told):
    (folder.parent / "secret").write_bytes(b"1234567890123456")
    (folder / "mine").write_bytes(b"1234567890123456")
    (folder / "link").symlink_to(folder.parent / "secret")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(Refused) as raised:
        register(Regions(folder), **asked)
    assert told in str(raised.value)


def test_a_region_is_registered_once_and_ends(folder):
    (folder / "mine").write_bytes(b"12345678")
    regions = Regions(folder)
    register(regions, key="mine", byte_size=8)
    with pytest.raises(Refused, match="'r' is registered already"):
        register(regions, key="mine", byte_size=8)
    with pytest.raises(Refused, match=r"'r' has 8 bytes, not 4 \+ 5"):
        regions.part("r", 4, 5)
    assert bytes(regions.part("r", 4, 4)) == b"5678"
    regions.answer("POST", ["unregister"], b"")
    assert regions.answer("GET", ["status"], b"") == b"[]"
    with pytest.raises(Refused, match="there is nothing at 'region'"):
        regions.answer("GET", ["region"], b"")
