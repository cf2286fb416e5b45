"""What `miniinfer serve` adds to a plan's own time, and how many requests of one row it answers beside static batches.

    python -m tests.benchmarks.serving [--plan FILE] [--device cpu] [--modes json,binary,shared] [--clients 64] [--processes 4]
                                       [--seconds 5] [--sizes 1,64] [--serve "--max-batch 64 ..."] [--json FILE]
                                       [--model resnet50]

Without a plan: a perceptron 256-512-10 with random weights; ``--model`` builds one of sample_models in f16. Clients send again
when they are answered, from processes of their own, over loopback: their tensors as JSON, as bytes (binary), or by shared memory
of which the server is told once. ``--clients 64,256`` measures both.

Beside each rate stand the microseconds of a processor that a request took: of the first thread of the process that computes,
which speaks to fronts (or clients), of its other threads, of the fronts, and of the clients; and the rate of the same clients
with servers that answer at once.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shlex
import socket
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
from tests.server.server_process import ServerProcess, serving

Address = tuple[str, int]


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
            region = f"miniinfer-bench-{os.getpid()}-{clients}-{number}"
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


def processor_us(process: int) -> dict[str, float]:
    """Microseconds that each thread of a process has had of a processor, by its number."""
    taken = {}
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            taken[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e3
    return taken


def children_of(process: int) -> list[int]:
    """The processes that it has started."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


class Split:
    """Where the processors' time goes in a server, from here on."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._fronts = children_of(process)
        self._before = self._taken()

    def _taken(self) -> dict[str, float]:
        threads = processor_us(self._process)
        first = threads.pop(str(self._process))
        fronts = sum(sum(processor_us(front).values()) for front in self._fronts)
        return {"first thread": first, "other threads": sum(threads.values()), "fronts": fronts}

    def each(self, requests: int) -> dict[str, float]:
        """Microseconds for each of so many requests."""
        return {name: (us - self._before[name]) / requests for name, us in self._taken().items()}


@contextlib.contextmanager
def answering(processes: int, nbytes: int) -> Iterator[Address]:
    """Servers that answer at once, with so many bytes."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        command = [sys.executable, "-m", "tests.benchmarks.answering", str(listening.fileno()), str(nbytes)]
        running = [subprocess.Popen(command, pass_fds=[listening.fileno()]) for _ in range(processes)]
        try:
            yield listening.getsockname()
        finally:
            for process in running:
                process.kill()
                process.wait()


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
    used = sum(a["processor_s"] for a in answers)
    times = sorted(s * 1e3 for a in answers for s in a["seconds"])
    wrong = {s: c for a in answers for s, c in a["statuses"].items() if s != "200"}
    assert not wrong, f"answers by status: {wrong}"
    return {
        "qps": len(times) / seconds,
        "p50_ms": times[len(times) // 2],
        "p99_ms": times[int(len(times) * 0.99)],
        "requests": len(times),
        "client_us": used * 1e6 / len(times),
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
        for k in ("batch_rows", "queue_seconds", "execution_seconds", "answer_seconds", "request_seconds")
    }
    phases = dict(re.findall(r'miniinfer_batch_phase_seconds_total\{[^}]*phase="(\w+)"[^}]*\} (\S+)', text))
    count = max(float(sums["batch_rows_count"]), 1)
    each = ", ".join(f"{phase} {float(seconds) / count * 1e3:.2f}" for phase, seconds in phases.items())
    ms = {name.removesuffix("_seconds"): seconds * 1e3 for name, seconds in mean.items() if name != "batch_rows"}
    return (
        f"ms a batch: {each}; batches of {mean['batch_rows']:.1f}; queue {ms['queue']:.2f} ms, execution {ms['execution']:.2f}"
        f" (of which answering {ms['answer']:.2f}), from head to answer {ms['request']:.2f}"
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


def compared(
    server: ServerProcess, paths: list[Path], processes: int, seconds: float, answer_nbytes: int, best: float
) -> dict[str, Any]:
    """What clients measured of a server, where the time of processors went, and what they do with one that answers at once."""
    measured(server.address, paths, processes, seconds / 10)
    split = Split(server.process.pid)
    many = measured(server.address, paths, processes, seconds)
    each = {**split.each(many["requests"]), "clients": many["client_us"]}
    with answering(processes, answer_nbytes) as address:
        alone = measured(address, paths, processes, seconds / 3)
    return {**many, "of_static": many["qps"] / best, "us_each": each, "answered_at_once_qps": alone["qps"]}


def line_of(many: dict[str, Any]) -> str:
    """The figures in a line."""
    each = ", ".join(f"{name} {us:.0f}" for name, us in many["us_each"].items())
    return (
        f"{many['qps']:.0f}/s, {many['of_static']:.2f} of the best static batch; p50 {many['p50_ms']:.2f} ms,"
        f" p99 {many['p99_ms']:.2f}; us a request: {each}; answered at once {many['answered_at_once_qps']:.0f}/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--modes", default="json,binary,shared", type=lambda text: text.split(","))
    parser.add_argument("--model", help="of sample_models, in f16")
    parser.add_argument("--clients", type=lambda text: [int(count) for count in text.split(",")], default=[64])
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
        if given.model:
            plan = folder / "model.plan"
            model = ["-m", "sample_models", given.model, "--dtype", "f16", "-o", kept]
            subprocess.run([sys.executable, *model], check=True, stdout=subprocess.DEVNULL)
            built = ["-m", "miniinfer_cli", "build", str(next(folder.glob("*.onnx"))), "-o", str(plan), "-q"]
            subprocess.run([sys.executable, *built], check=True)
        if plan is None:
            plan = folder / "perceptron.plan"
            write_plan(perceptron(), plan)
        with miniinfer_cli.load(plan, given.device) as engine:
            found["static"] = static_rates(engine, given.sizes, given.seconds / 3)
            own = own_ms(engine, 500)
        print("static: " + ", ".join(f"{n} rows {rate:.0f}/s" for n, rate in found["static"].items()), flush=True)
        best = max(found["static"].values())
        engine = stack.enter_context(miniinfer_cli.load(plan, "cpu"))
        answer_nbytes = sum(o.nbytes for o in engine.run(requests_of(engine, 1, 1)[0]).values()) + 300
        for flags in given.serve or [""]:
            with serving(f"model={plan}", "--device", given.device, "--shared-memory", *shlex.split(flags)) as server:
                for mode in given.modes:
                    for clients in given.clients:
                        with requests_in(folder, engine, server.address, mode, clients) as paths:
                            label = f"[{flags}] {mode}, {clients} clients"
                            found[label] = compared(server, paths, given.processes, given.seconds, answer_nbytes, best)
                        print(f"{label}: {line_of(found[label])}\n  {batches(server.address)}", flush=True)
                    with requests_in(folder, engine, server.address, mode, 1) as paths:
                        one = measured(server.address, paths, 1, given.seconds / 3)
                    print(f"  one client: p50 {one['p50_ms']:.3f} ms, {one['p50_ms'] - own:.3f} above the engine's own {own:.3f}")
                    found[f"[{flags}] {mode}, one client"] = {"own_ms": own, **one}
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
