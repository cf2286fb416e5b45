"""What `miniinfer serve` adds to a plan's own time, and how many requests of one row it answers beside static batches.

    python -m tests.benchmarks.serving [--plan FILE] [--device cpu] [--modes json,binary,shared] [--clients 64] [--processes 4]
                                       [--seconds 5] [--sizes 1,64] [--serve "--max-batch 64 ..."] [--json FILE]

Without a plan: a perceptron 256-512-10 with random weights. Clients send again when they are answered, from processes of their
own, over loopback: their tensors as JSON, as bytes (binary), or by shared memory of which the server is told once.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from engine_format import write_plan
from miniinfer_cli.server.datatypes import NAMES
from tests.benchmarks.batching import perceptron, requests_of, static_rates
from tests.server.server_process import serving

Address = tuple[str, int]


@contextlib.contextmanager
def server(plan: Path, *flags: str) -> Iterator[Address]:
    """`miniinfer serve` in a process of its own; gives where it listens."""
    with serving(f"model={plan}", *flags) as started:
        yield started.address


def post(address: Address, path: str, body: bytes) -> None:
    """One request that must succeed."""
    connection = http.client.HTTPConnection(*address)
    connection.request("POST", path, body)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()


def request_bytes(engine: Any, inputs: dict[str, Any], mode: str, region: str) -> bytes:
    """A whole request to infer, head and body, with outputs as bytes unless ``mode`` is json."""
    items, behind, offset = [], [], 0
    for binding in engine.inputs:
        array = np.ascontiguousarray(inputs[binding.name])
        item: dict[str, Any] = {
            "name": binding.name,
            "datatype": NAMES[binding.type.dtype],
            "shape": list(array.shape),
        }
        if mode == "json":
            item["data"] = array.reshape(-1).tolist()
        elif mode == "binary":
            item["parameters"] = {"binary_data_size": array.nbytes}
            behind.append(array.tobytes())
        else:
            item["parameters"] = {
                "shared_memory_region": region,
                "shared_memory_offset": offset,
                "shared_memory_byte_size": array.nbytes,
            }
            offset += array.nbytes
        items.append(item)
    text = json.dumps({"inputs": items, "parameters": {"binary_data_output": mode != "json"}}).encode()
    body = b"".join((text, *behind))
    extra = "" if mode == "json" else f"Inference-Header-Content-Length: {len(text)}\r\n"
    head = f"POST /v2/models/model/infer HTTP/1.1\r\nHost: model\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


@contextlib.contextmanager
def requests_in(folder: Path, engine: Any, address: Address, mode: str, clients: int) -> Iterator[list[Path]]:
    """The requests of so many clients as files; for shared memory, what they name is there and registered."""
    paths, shared = [], []
    try:
        for number, inputs in enumerate(requests_of(engine, 1, clients)):
            region = f"miniinfer-bench-{os.getpid()}-{number}"
            if mode == "shared":
                memory = Path("/dev/shm", region)
                shared.append(memory)
                memory.write_bytes(b"".join(np.ascontiguousarray(inputs[b.name]).tobytes() for b in engine.inputs))
                asked = {"key": f"/{region}", "offset": 0, "byte_size": memory.stat().st_size}
                post(address, f"/v2/systemsharedmemory/region/{region}/register", json.dumps(asked).encode())
            path = folder / f"{mode}-{number}"
            path.write_bytes(request_bytes(engine, inputs, mode, region))
            paths.append(path)
        yield paths
    finally:
        for memory in shared:
            memory.unlink()


def measured(address: Address, paths: list[Path], processes: int, seconds: float) -> dict[str, Any]:
    """Requests a second and latencies in ms of clients that send these, in so many processes."""
    start = time.time() + 1
    running = []
    for number in range(min(processes, len(paths))):
        asked = {
            "address": address,
            "requests": [str(p) for p in paths[number::processes]],
            "start": start,
            "seconds": seconds,
        }
        command = [sys.executable, "-m", "tests.benchmarks.http_clients"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None
        json.dump(asked, process.stdin)
        process.stdin.close()
        running.append(process)
    answers = []
    for process in running:
        assert process.stdout is not None
        answers.append(json.load(process.stdout))
        process.wait()
    times = sorted(s * 1e3 for a in answers for s in a["seconds"])
    wrong = {s: c for a in answers for s, c in a["statuses"].items() if s != "200"}
    assert not wrong, f"answers by status: {wrong}"
    return {
        "qps": len(times) / seconds,
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[int(len(times) * 0.99)],
        "requests": len(times),
    }


def batches(address: Address) -> str:
    """What the server says of all so far."""
    connection = http.client.HTTPConnection(*address)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    sums = dict(re.findall(r'miniinfer_(\w+)\{model="model",version="1"\} (\S+)', text))
    mean = {
        k: float(sums[f"{k}_sum"]) / max(float(sums[f"{k}_count"]), 1)
        for k in ("batch_rows", "queue_seconds", "execution_seconds", "request_seconds")
    }
    return (
        f"batches of {mean['batch_rows']:.1f}; queue {mean['queue_seconds'] * 1e3:.2f} ms, execution"
        f" {mean['execution_seconds'] * 1e3:.2f}, from head to answer {mean['request_seconds'] * 1e3:.2f}"
    )


def own_ms(engine: Any, count: int) -> float:
    """The median time of one row in the engine, from this process."""
    inputs = requests_of(engine, 1, 1)[0]
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        engine.run(inputs)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--modes", default="json,binary,shared", type=lambda text: text.split(","))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--serve", action="append", help="flags of the server; several times for several servers")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as kept, contextlib.ExitStack() as stack:
        folder = Path(kept)
        plan = given.plan
        if plan is None:
            plan = folder / "perceptron.plan"
            write_plan(perceptron(), plan)
        with miniinfer_cli.load(plan, given.device) as engine:
            found["static"] = static_rates(engine, given.sizes, given.seconds / 3)
            own = own_ms(engine, 500)
        print("static: " + ", ".join(f"{n} rows {rate:.0f}/s" for n, rate in found["static"].items()), flush=True)
        best = max(found["static"].values())
        engine = stack.enter_context(miniinfer_cli.load(plan, "cpu"))
        for flags in given.serve or [""]:
            with server(plan, "--device", given.device, "--shared-memory", *shlex.split(flags)) as address:
                for mode in given.modes:
                    with requests_in(folder, engine, address, mode, given.clients) as paths:
                        one = measured(address, paths[:1], 1, given.seconds / 3)
                        print(
                            f"[{flags}] {mode}: one client p50 {one['p50_ms']:.3f} ms, {one['p50_ms'] - own:.3f} above the"
                            f" engine's own {own:.3f}",
                            flush=True,
                        )
                        many = measured(address, paths, given.processes, given.seconds)
                        print(
                            f"  {given.clients} clients: {many['qps']:.0f}/s, {many['qps'] / best:.2f} of the best static batch;"
                            f" p50 {many['p50_ms']:.2f} ms, p99 {many['p99_ms']:.2f}",
                            flush=True,
                        )
                        print(f"  {batches(address)}", flush=True)
                        found[f"{flags} {mode}"] = {"own_ms": own, "one": one, "many": many}
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
