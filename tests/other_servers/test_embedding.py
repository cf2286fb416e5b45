"""The programs of docs/embedding.md, as they stand there."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import miniinfer_cli
from tests.everywhere import parsed
from tests.other_servers.conftest import ROOT, ask, free_port, running

PROGRAMS = {
    re.match(r"# (\S+):", block)[1]: block
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), re.S)
}
DOUBLE = "g (float[n,16] x) => (float[n,16] y) { y = Add(x, x) }"


@pytest.fixture
def folder(tmp_path):
    miniinfer_cli.build(parsed(DOUBLE), tmp_path / "model.plan")
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_loop_answers_all(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "loop.py", "model.plan"], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    told = re.fullmatch(r"100 answers in (\d+) batches\n", ended.stdout)
    assert told and int(told[1]) < 100


def patient(url, document):
    """Asks again where a worker that ends closes the connection that it had just accepted."""
    for _ in range(5):
        with contextlib.suppress(ConnectionError, urllib.error.URLError):
            return ask(url, document)
    return ask(url, document)


def round_of(port):
    """The workers that answered 24 questions, eight at a time; all answers are right."""
    url = f"http://127.0.0.1:{port}/predict"
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda n: patient(url, {"x": [[n] * 16]}), range(24)))
    for number, (status, answer) in enumerate(answers):
        assert (status, answer["y"]) == (200, [[2 * number] * 16])
    return {answer["worker"] for _, answer in answers}


def both(port):
    """The two workers, once both have answered."""
    seen = set()
    for _ in range(40):
        seen |= round_of(port)
        if len(seen) == 2:
            break
    assert len(seen) == 2
    return seen


PRELOADED = """
import os, numpy as np, miniinfer_cli
engine = miniinfer_cli.load(os.environ["PLAN"], "cpu", threads=1)
batcher = miniinfer_cli.Batcher(engine, 32, 2)
batcher.submit({"x": np.zeros((1, 16), np.float32)}).result()  # threads run, and locks were taken, before the fork
"""


@pytest.mark.parametrize("preload", [False, True])
def test_fastapi_under_gunicorn(folder, preload):
    port = free_port()
    flags = ["--workers", "2", "--worker-class", "uvicorn.workers.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
    if preload:
        text = PROGRAMS["app.py"]
        begin, end = text.index("@contextlib"), text.index("class Question")
        (folder / "app.py").write_text(
            text[:begin] + PRELOADED + "app = FastAPI()\napp.state.batcher = batcher\n\n\n" + text[end:]
        )
        flags.append("--preload")
    command = [sys.executable, "-m", "gunicorn", "app:app", *flags]
    with running(command, f"http://127.0.0.1:{port}/docs", folder, PLAN=str(folder / "model.plan")) as server:
        before = both(port)
        status, answer = ask(f"http://127.0.0.1:{port}/predict", {"x": [[1, 2]]})
        assert (status, "input 'x'" in answer["detail"]) == (400, True)
        if not preload:
            miniinfer_cli.build(parsed(DOUBLE), folder / "model.plan")
            server.send_signal(signal.SIGHUP)  # new workers
            until = time.monotonic() + 30
            while before & round_of(port):
                assert time.monotonic() < until
            assert not before & both(port)
    np.testing.assert_equal(server.returncode, 0)
