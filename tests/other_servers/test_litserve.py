"""LitServe with the API of ``integrations/litserve.py``."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.other_servers.conftest import ask, free_port, running
from tests.served_net import requests


def test_requests_are_answered_and_one_that_is_wrong_fails_alone(plan, expected, tmp_path):
    port = free_port()
    script = (
        "import litserve; from miniinfer_cli.integrations.litserve import MiniinferAPI\n"
        "if __name__ == '__main__':\n"
        f"    api = MiniinferAPI({str(plan)!r}, max_batch=8, options={{'threads': 1}})\n"
        f"    litserve.LitServer(api, accelerator='cpu').run(port={port}, host='127.0.0.1', generate_client_file=False)\n"
    )
    (tmp_path / "server.py").write_text(script)
    with running([sys.executable, "server.py"], f"http://127.0.0.1:{port}/health", tmp_path):
        given = [{name: array.tolist() for name, array in requests(1, n).items()} for n in range(16)]
        given[5]["k"] = [7]
        given[6]["x"] = [[1.0, 2.0]]
        with ThreadPoolExecutor(16) as callers:
            answers = list(callers.map(lambda inputs: ask(f"http://127.0.0.1:{port}/predict", inputs), given))
        for number, (status, answer) in enumerate(answers):
            if number in (5, 6):
                assert status == 400 and "detail" in answer, (status, answer)
            else:
                assert status == 200, answer
                np.testing.assert_allclose(answer["y"], expected(given[number])["y"], rtol=1e-5)
