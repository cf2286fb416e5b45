"""``torch.compile(backend="miniinfer")`` on a GPU: results that are held stay what they are, though nothing is copied."""

import pytest

torch = pytest.importorskip("torch")
# Of torch's own parts, which it imports at the first compilation: an error there would break that import off.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def compiled():
    from miniinfer_cli.torch_backend import backend

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 32)).eval().cuda()
    torch._dynamo.reset()
    return model, torch.compile(model, backend=backend.compile_graph)


def test_results_that_are_held_stay(compiled):
    model, run = compiled
    inputs = [torch.randn(4, 64, device="cuda") for _ in range(9)]
    with torch.inference_mode():
        results = [run(x) for x in inputs]
        for x, y in zip(inputs, results, strict=True):
            torch.testing.assert_close(y, model(x), rtol=1e-2, atol=1e-2)
    assert len({y.data_ptr() for y in results}) == len(results)


def test_memory_is_taken_again_where_results_are_gone(compiled):
    model, run = compiled
    x = torch.randn(4, 64, device="cuda")
    with torch.inference_mode():
        run(x)
        addresses = {run(x).data_ptr() for _ in range(20)}
        y = run(x)
        torch.testing.assert_close(y, model(x), rtol=1e-2, atol=1e-2)
    assert len(addresses) <= 2


def test_work_of_torch_before_and_behind_is_in_order(compiled):
    model, run = compiled
    with torch.inference_mode():
        run(torch.zeros(4, 64, device="cuda"))
        for n in range(20):
            x = torch.full((4, 64), 0.0, device="cuda")
            for _ in range(30):
                x = x + 0.01 * n
            torch.testing.assert_close(run(x) * 2 + 1, model(x) * 2 + 1, rtol=1e-2, atol=1e-2)


def test_nobody_waits_and_all_is_in_order(compiled):
    """Long work of torch's around short calls, on its own stream and on another; what was read may go before it is read."""
    model, run = compiled
    large = torch.randn(4096, 4096, device="cuda") / 64
    with torch.inference_mode():
        run(torch.zeros(4, 64, device="cuda"))
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                kept, wanted = [], []
                for n in range(12):
                    x = torch.randn(4, 64, device="cuda")
                    slow = large
                    for _ in range(4):
                        slow = slow @ large
                    x = x + slow[:4, :64] * 0 + n / 10
                    y = run(x)
                    wanted.append(model(x))
                    del x
                    for _ in range(2):
                        slow = slow @ large
                    kept.append(y + slow[:4, :32] * 0)
                    del y
                for got, want in zip(kept, wanted, strict=True):
                    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2)
            torch.cuda.synchronize()


def test_a_call_returns_before_its_work_is_done(compiled):
    _, run = compiled
    with torch.inference_mode():  # where all tensors are made: those of elsewhere are compiled for anew
        large = torch.randn(8192, 8192, device="cuda") / 90
        x = torch.randn(4, 64, device="cuda")
        for _ in range(6):
            run(x + large[:4, :64] * 0)
        torch.cuda.synchronize()
        slow = large
        for _ in range(20):
            slow = slow @ large
        behind = torch.cuda.Event()
        y = run(x + slow[:4, :64] * 0)
        behind.record()
        assert not behind.query()
        torch.cuda.synchronize()
    assert y.shape == (4, 32)
