"""KServe's server with the model of ``integrations/kserve.py``."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.other_servers.conftest import ask, free_port, running
from tests.served_net import document, requests


@pytest.mark.parametrize("workers", [1, 2])
def test_the_protocol_is_answered_and_one_that_is_wrong_fails_alone(plan, expected, tmp_path, workers):
    port = free_port()
    script = (
        "import kserve; from miniinfer_cli.integrations.kserve import PlanModel\n"
        "from kserve.protocol.rest.multiprocess.server import RESTServerProcess\n"
        # It ends a worker that does not answer within 5 s, and its own import takes as long on a processor that others use.
        "RESTServerProcess.is_alive.__defaults__ = (60,)\n"
        "if __name__ == '__main__':\n"
        f"    model = PlanModel('net', {str(plan)!r}, max_batch=8, options={{'threads': 1}})\n"
        f"    kserve.ModelServer(http_port={port}, enable_grpc=False, workers={workers}).start([model])\n"
    )
    (tmp_path / "server.py").write_text(script)
    url = f"http://127.0.0.1:{port}/v2/models/net"
    with running([sys.executable, "server.py"], f"{url}/ready", tmp_path):
        status, told = ask(url)
        assert (status, [(i["name"], i["datatype"], i["shape"]) for i in told["inputs"]]) == (
            200,
            [("x", "FP32", [-1, 16]), ("k", "INT64", [-1])],
        )
        given = [requests(1, n) for n in range(16)]
        given[5]["k"] = np.array([7])
        with ThreadPoolExecutor(16) as callers:
            answers = list(callers.map(lambda inputs: ask(f"{url}/infer", document(inputs)), given))
        for number, (status, answer) in enumerate(answers):
            if number == 5:
                assert status == 400 and "7" in str(answer), (status, answer)
            else:
                assert status == 200, answer
                found = {o["name"]: o for o in answer["outputs"]}
                np.testing.assert_allclose(found["y"]["data"], np.ravel(expected(given[number])["y"]), rtol=1e-5)
                assert found["y"]["shape"] == [1, 4]
