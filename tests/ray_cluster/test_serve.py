"""A plan behind Ray Serve: the protocol, handles, a request that fails alone, clients that go away, and Ray's own batching."""

import http.client
import json
import socket
import time

import numpy as np
import pytest
from ray import serve

import miniinfer_cli
from miniinfer_cli.integrations.ray import deployment
from tests.ray_cluster.local import BATCH, DELAY_MS, rays_batching
from tests.served_net import document, requests

WAIT_S = 30


def one(number: int) -> dict:
    return {name: array[number : number + 1] for name, array in requests(BATCH).items()}


@pytest.fixture(scope="module")
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": number})
    yield number
    serve.shutdown()


@pytest.fixture(scope="module")
def handle(plan, port):
    return serve.run(deployment(plan, max_batch=BATCH, max_delay_ms=DELAY_MS, name="net"), name="ours", route_prefix="/ours")


def ask(port, method, path, document=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    connection.request(method, f"/ours{path}", None if document is None else json.dumps(document))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if body else None


def test_the_protocol_over_http(handle, plan, port):
    assert ask(port, "GET", "/v2/health/ready")[0] == 200
    status, told = ask(port, "GET", "/v2/models/net")
    assert (status, told["name"], [i["name"] for i in told["inputs"]]) == (200, "net", ["x", "k"])
    inputs = one(3)
    status, answer = ask(port, "POST", "/v2/models/net/infer", document(inputs))
    with miniinfer_cli.load(plan, "cpu") as engine:
        expected = engine.run(inputs)
    assert status == 200
    found = {o["name"]: o for o in answer["outputs"]}
    np.testing.assert_allclose(found["y"]["data"], expected["y"].ravel(), rtol=1e-5)
    assert found["best"]["data"] == expected["best"].tolist()
    status, answer = ask(port, "POST", "/v2/models/other/infer", document(inputs))
    assert (status, "there is no model 'other'" in answer["error"]) == (404, True)
    status, answer = ask(port, "POST", "/v2/models/net/infer", {"inputs": []})
    assert status == 400 and "error" in answer


def test_a_poisoned_request_fails_alone(handle, plan):
    with miniinfer_cli.load(plan, "cpu") as engine:
        expected = [engine.run(one(n)) for n in range(BATCH)]
    before = handle.stats.remote().result(timeout_s=WAIT_S)
    responses = [handle.infer.remote({**one(n), "k": np.array([9])} if n == 13 else one(n)) for n in range(BATCH)]
    for number, response in enumerate(responses):
        if number == 13:
            with pytest.raises(Exception, match="9"):
                response.result(timeout_s=WAIT_S)
        else:
            np.testing.assert_allclose(response.result(timeout_s=WAIT_S)["y"], expected[number]["y"], rtol=1e-5)
    after = handle.stats.remote().result(timeout_s=WAIT_S)
    assert after["requests"]["error"] - before["requests"]["error"] == 1
    assert after["mean_batch"] > 1


def test_clients_that_go_away_leave_nothing_behind(handle, port):
    text = json.dumps(document({n: np.repeat(a, 8, axis=0) for n, a in one(0).items()})).encode()
    head = f"POST /ours/v2/models/net/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
            connection.sendall(head + text)  # and nobody reads the answer
    responses = [handle.infer.remote(one(n % BATCH)) for n in range(200)]
    for response in responses[::2]:
        response.cancel()
    for response in responses[1::2]:
        assert response.result(timeout_s=WAIT_S)["y"].shape == (1, 4)
    until = time.monotonic() + WAIT_S
    while True:
        found = handle.stats.remote().result(timeout_s=WAIT_S)
        if not (found["queued"] or found["running"] or found["outside"]):
            break
        assert time.monotonic() < until, found
        time.sleep(0.05)
    assert ask(port, "POST", "/v2/models/net/infer", document(one(1)))[0] == 200


def test_it_gives_what_rays_own_batching_does_and_both_put_batches_together(handle, plan):
    others = serve.run(rays_batching(plan), name="theirs", route_prefix="/theirs")
    before = handle.stats.remote().result(timeout_s=WAIT_S)
    answers = []
    for target in (handle, others):
        responses = [target.infer.remote(one(n % BATCH)) for n in range(4 * BATCH)]
        answers.append([response.result(timeout_s=WAIT_S) for response in responses])
    for ours, theirs in zip(*answers, strict=True):
        np.testing.assert_allclose(ours["y"], theirs["y"], rtol=1e-5)
        np.testing.assert_array_equal(ours["best"], theirs["best"])
    after = handle.stats.remote().result(timeout_s=WAIT_S)
    sizes = others.batch_sizes.remote().result(timeout_s=WAIT_S)
    serve.delete("theirs")
    assert after["rows"] - before["rows"] == sum(sizes) == 4 * BATCH
    assert after["batches"] - before["batches"] < 4 * BATCH and len(sizes) < 4 * BATCH
