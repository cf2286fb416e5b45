"""`miniinfer serve` as a process: Triton's own client, one write for an answer, its ends, and a small storm."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException, shared_memory

from tests.server.asking import body_of, write_model
from tests.server.server_process import WAIT_S, serving
from tests.server.storm import storm

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n"
FLAGS = ("--max-batch", "4", "--shared-memory", "--read-timeout", "1", "--keep-alive", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(folder):
    """HTTP is spoken by two processes beside the one that computes; the storm's servers speak it themselves."""
    with serving(str(write_model(folder / "m.plan")), *FLAGS, "--http-processes", "2") as server:
        yield server
        code = server.end(signal.SIGINT)
        assert (code, server.lines[-1].partition(",")[0]) == (0, "All requests are answered")


@pytest.fixture
def client(server):
    with triton.InferenceServerClient("{}:{}".format(*server.address)) as client:
        yield client


def inputs_of(k, binary=True):
    x = triton.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2]], np.float32), binary_data=binary)
    index = triton.InferInput("k", [1, 1], "INT64")
    index.set_data_from_numpy(np.array([[k]]), binary_data=binary)
    return [x, index]


def test_tritons_client_reads_what_there_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("q")
    assert client.get_server_metadata()["name"] == "miniinfer"
    assert [i["datatype"] for i in client.get_model_metadata("m")["inputs"]] == ["FP32", "INT64"]
    assert client.get_model_config("m")["max_batch_size"] == 4
    assert client.get_inference_statistics("m")["model_stats"][0]["name"] == "m"


@pytest.mark.parametrize("binary", [False, True])
def test_tritons_client_infers(client, binary):
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    found = client.infer("m", inputs_of(3, binary), outputs=outputs, request_id="a", priority=1, timeout=10_000_000)
    np.testing.assert_array_equal(found.as_numpy("y"), np.array([[1.75, 2.75]], np.float32), strict=True)
    assert (found.get_response()["id"], found.as_numpy("k")) == ("a", None)


def test_tritons_client_is_told_what_is_wrong(client):
    with pytest.raises(InferenceServerException, match="Gather index 9 is outside") as raised:
        client.infer("m", inputs_of(9))
    assert raised.value.status() == "400"
    with pytest.raises(InferenceServerException, match="there is no model 'q'"):
        client.infer("q", inputs_of(1))


def test_tritons_client_infers_from_and_into_shared_memory(client):
    memory = shared_memory.create_shared_memory_region("r", "/miniinfer-test-process", 24)
    try:
        shared_memory.set_shared_memory_region(memory, [np.array([[1, 2]], np.float32), np.array([[2]])])
        client.register_system_shared_memory("r", "/miniinfer-test-process", 24)
        x, k = inputs_of(0)
        x.set_shared_memory("r", 8)
        k.set_shared_memory("r", 8, offset=8)
        y = triton.InferRequestedOutput("y")
        y.set_shared_memory("r", 8, offset=16)
        client.infer("m", [x, k], outputs=[y])
        found = shared_memory.get_contents_as_numpy(memory, np.float32, [1, 2], 16)
        np.testing.assert_array_equal(found, [[1.5, 2.5]])
        client.unregister_system_shared_memory("r")
        assert client.get_system_shared_memory_status() == []
    finally:
        shared_memory.destroy_shared_memory_region(memory)


def test_metrics_of_all_processes_count_what_clients_saw(server):
    def figures():
        with triton.InferenceServerClient("{}:{}".format(*server.address)) as one:
            text = one._get("metrics", {}, {}).read().decode()
        return {(s.name, s.labels.get("outcome")): s.value for f in text_string_to_metric_families(text) for s in f.samples}

    before = figures()
    for number in range(6):  # connections are handed out in turns
        with triton.InferenceServerClient("{}:{}".format(*server.address)) as one:
            one.infer("m", inputs_of(number % 4))
            if number % 3 == 0:
                with pytest.raises(InferenceServerException, match="there is no output 'q'"):
                    one.infer("m", inputs_of(1), outputs=[triton.InferRequestedOutput("q")])
    after = figures()
    seen = {key: after[key] - before[key] for key in before}
    assert seen["miniinfer_requests_total", "result"] == seen["miniinfer_request_seconds_count", None] == 6
    assert seen["miniinfer_batch_rows_sum", None] == seen["miniinfer_batch_rows_count", None] == 6
    assert seen["miniinfer_requests_total", "invalid"] == 2


def test_a_process_that_speaks_http_and_ends_is_replaced(server, client):
    fronts = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert len(fronts) == 2
    os.kill(int(fronts[0]), signal.SIGKILL)
    server.expect("a process that speaks HTTP ended with code -9; another takes its place")
    for _ in range(4):
        with triton.InferenceServerClient("{}:{}".format(*server.address)) as one:
            assert one.infer("m", inputs_of(1)).as_numpy("k") == 1


def test_an_answer_leaves_in_one_write(server):
    with socket.create_connection(server.address) as one:
        for request in (HEAD % len(body_of(1)) + body_of(1), b"GET /v2 HTTP/1.1\r\nHost: m\r\n\r\n"):
            one.sendall(request)
            got = one.recv(1 << 16)
            head, _, body = got.partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head
            assert body
        one.sendall(b"HEAD /v2 HTTP/1.1\r\nHost: m\r\n\r\n")
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 405")


def test_two_requests_in_one_packet_are_answered_in_their_order(server):
    with socket.create_connection(server.address) as one:
        bodies = [body_of(n, id=f"number {n}") for n in range(3)]
        requests = [HEAD % len(body) + body for body in bodies]
        requests[-1] = requests[-1].replace(b"Host: m", b"Host: m\r\nConnection: close")
        one.sendall(b"".join(requests))
        got = b"".join(iter(lambda: one.recv(1 << 16), b""))
    words = re.findall(rb"HTTP/1.1 \d+|number \d", got)
    assert words == [w for n in range(3) for w in (b"HTTP/1.1 200", b"number %d" % n)]


@pytest.mark.parametrize("sent", [b"", b"POST /v2/mod", HEAD % 100 + b"{"])
def test_who_sends_too_slowly_is_given_up(server, sent):
    with socket.create_connection(server.address) as one:
        begun = time.perf_counter()
        one.sendall(sent)
        got = b"".join(iter(lambda: one.recv(1 << 16), b""))
        assert time.perf_counter() - begun < 5
    assert got.startswith(b"HTTP/1.1 408") if sent.startswith(HEAD[:30]) else not got


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", HEAD[:-2] % 1 + b"a b: c\r\n\r\n"])
def test_what_is_no_http_is_told_so_and_no_more_is_read(server, sent):
    with socket.create_connection(server.address) as one:
        one.sendall(sent)
        got = b"".join(iter(lambda: one.recv(1 << 16), b""))
    assert got.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n")
    assert got.endswith(b'\r\nconnection: close\r\n\r\n{"error":"the request is no HTTP that is understood here"}')


@pytest.mark.parametrize("sent", [b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 70_000, HEAD[:-2] % 1 + b"a: b\r\n" * 40_000 + b"\r\n{"])
@pytest.mark.parametrize("in_front", [b"", HEAD % len(body_of(0)) + body_of(0)])
def test_a_head_beyond_every_use_is_refused(server, sent, in_front):
    with socket.create_connection(server.address) as one:
        if in_front:
            one.sendall(in_front)
            assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):  # it does not read the rest
            one.sendall(sent[:66_000])
            time.sleep(0.1)
            one.sendall(sent[66_000:])
        got = b""
        with contextlib.suppress(ConnectionError):
            got = b"".join(iter(lambda: one.recv(1 << 16), b""))
    assert got.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert got.endswith(b'{"error":"the head of the request is larger than 65536 bytes (send tensors in the body)"}')


def test_a_large_body_is_no_head(server):
    """The head of the next request comes in one piece with it."""
    body = b'{"id": "' + b"x" * 200_000 + b'", ' + body_of(0)[1:]
    with socket.create_connection(server.address) as one:
        one.sendall(HEAD % len(body) + body + b"GET /v2 HTTP/1.1\r\nHost: m\r\n")
        time.sleep(0.2)
        one.sendall(b"Connection: close\r\n\r\n")
        got = b"".join(iter(lambda: one.recv(1 << 16), b""))
    assert re.findall(rb"HTTP/1.1 \d+", got) == [b"HTTP/1.1 200"] * 2


def test_an_idle_connection_is_closed(server):
    with socket.create_connection(server.address) as one:
        one.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: m\r\n\r\n")
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert one.recv(1 << 16) == b""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--port", "{port}", "{plan}"], 2, "cannot listen at 127.0.0.1:{port}: Address already in use"),
        (["--host", "no.such.host.invalid", "{plan}"], 2, "--host no.such.host.invalid: no such address"),
        (["--port", "0", "{plan}.none"], 4, "no such file"),
        (["--port", "0", "a b={plan}"], 2, "does not tell a name and a file"),
        (["--port", "0", "{plan}", "{plan}"], 2, "two plans are called m, version 1"),
    ],
)
def test_what_cannot_be_served_ends_with_its_code(server, folder, arguments, code, told, capsys):
    from miniinfer_cli.cli.main import main

    values = {"port": server.address[1], "plan": folder / "m.plan"}
    with pytest.raises(SystemExit) as ended:
        main(["serve", *(a.format(**values) for a in arguments)])
    assert ended.value.code == code
    assert told.format(**values) in capsys.readouterr().err


def test_a_server_without_uvicorn_says_what_is_missing(folder, monkeypatch, capsys):
    from miniinfer_cli.cli.main import main

    for name in [n for n in sys.modules if n.startswith("miniinfer_cli.server.h")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(folder / "m.plan")])
    assert ended.value.code == 2
    assert "serve: uvicorn is not installed\n  hint: pip install 'miniinfer[serve]'" in capsys.readouterr().err


def test_who_still_waits_when_the_time_to_drain_is_over_is_told(folder):
    with serving(str(folder / "m.plan"), "--max-delay-ms", "60000", "--drain-timeout", "0.2", "--no-warm-up") as server:
        with socket.create_connection(server.address) as one:
            one.sendall(HEAD % len(body_of(1)) + body_of(1))
            time.sleep(0.1)
            assert server.end() == 6
            got = one.recv(1 << 16)
        assert got.startswith(b"HTTP/1.1 503")
        assert got.endswith(b'{"error":"the server ends, and was not done with it"}')
        assert server.lines[2] == "Ending when what is under way is answered; a second signal ends it at once"
        assert "miniinfer: error: requests were left without an answer" in server.lines


def test_a_second_signal_ends_a_server_whose_lines_nobody_reads(folder):
    command = [sys.executable, "-m", "miniinfer_cli", "serve", str(folder / "m.plan"), "--port", "0", "--no-warm-up"]
    server = subprocess.Popen([*command, "--max-delay", "60000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stderr is not None
    lines = [server.stdout.readline(), server.stdout.readline()]
    server.stdout.close()
    with socket.create_connection(("127.0.0.1", int(lines[1].split(":")[2].split()[0]))) as one:
        one.sendall(HEAD % len(body_of(1)) + body_of(1))
        time.sleep(0.1)
        for _ in range(2):
            server.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert server.wait(WAIT_S) == 6
    with server.stderr:
        assert server.stderr.read().splitlines()[:-1] == ["miniinfer: error: requests were left without an answer"]


def test_a_small_storm():
    found = storm(600, 8)
    assert {"good", "poisoned", "half", "unread", "replaced"} <= set(found["ended"])
