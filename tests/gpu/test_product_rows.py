"""Products that normalize rows or leave statistics, on a GPU: against f64, and the same bits every time."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.stream import Stream
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeForm
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.ir import DType
from tests.sm90_cases import large_rows
from tests.sm90_cases.normalized_rows import NORMALIZED, SUMMARIES, SUMMARY, RowsCase, normalized_case, summary_case
from tests.sm90_cases.tokens import TOLERANCES

_WIDE, _LONG = (TokenProduct(128, n, k, DType.F16, DType.F16, k, n) for n, k in ((2304, 768), (768, 3072)))
CASES = {
    **{f"normalized {n}": normalized_case(p, form, kept=n % 2 == 0) for n, (p, form) in enumerate(NORMALIZED)},
    "not centred": normalized_case(*NORMALIZED[2], centred=False, shift=False),
    **{f"summary {n}": summary_case(p, form) for n, (p, form) in enumerate(SUMMARIES)},
    "2304 features": normalized_case(_WIDE, Form(128, 3, 1, 4)),
    "3072 elements": summary_case(_LONG, Form(64, 4, 1, 12)),
    **{f"normalized, large {n}": large_rows.normalized_case(p, form) for n, (p, form) in enumerate(large_rows.NORMALIZED)},
    **{f"summary, large {n}": large_rows.summary_case(p, form) for n, (p, form) in enumerate(large_rows.SUMMARIES)},
    "many tokens, normalized": large_rows.normalized_case(
        large_rows.product(3000, 1100, 384), LargeForm(2, 256, 3, 2), kept=True
    ),
    "many tokens, not centred": large_rows.normalized_case(
        large_rows.product(3000, 600, 384), LargeForm(2, 192, 4, 2), centred=False, shifted=False, kept=True
    ),
    "many tokens, summary": large_rows.summary_case(large_rows.product(3000, 1088, 328), LargeForm(2, 192, 4, 2)),
    "more features, summary": large_rows.summary_case(large_rows.product(3000, 1088, 328), LargeForm(2, 256, 3, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case(device: Device, stream: Stream, name: str) -> None:
    case = CASES[name]
    (code,) = KernelCache(None).compile_many(sources_of([case.launch.kernel], device.arch))
    with ExitStack() as closing:
        memory = {o: closing.enter_context(device.allocate(a.nbytes)).address for o, a in case.arrays.items()}
        function = closing.enter_context(device.load(code)).function(case.launch.kernel.name)
        function.allow_shared(case.launch.shared_nbytes)
        for operand, array in case.arrays.items():
            stream.copy_to_device(memory[operand], np.ascontiguousarray(array).ctypes.data, array.nbytes)
        stream.synchronize()
        bits = set()
        for _ in range(20):
            launch(device, stream, function, case, memory)
            found = {operand: read(stream, memory[operand], case.arrays[operand]) for operand in case.exact}
            bits.add(b"".join(a.tobytes() for a in found.values()))
    dtype = DType.BF16 if found[next(iter(found))].dtype.name == "bfloat16" else DType.F16
    for operand, error in case.errors(found).items():
        assert error < TOLERANCES[dtype] * (2 if operand == SUMMARY else 1), operand
    assert len(bits) == 1


def launch(device: Device, stream: Stream, function: Any, case: RowsCase, memory: dict[Operand, int]) -> None:
    values: list[Any] = []
    for argument in case.launch.arguments:
        if isinstance(argument, TensorMap):
            values.append(device.encode(argument, memory[argument.operand]))
        else:
            values.append(np.uint64(memory[argument]) if isinstance(argument, Operand) else argument)
    action = case.launch
    stream.launch(function, action.grid, action.block, action.shared_nbytes, pack_parameters(values), action.attributes)


def read(stream: Stream, address: int, like: Any) -> Any:
    found = np.empty_like(like)
    stream.copy_to_host(found.ctypes.data, address, found.nbytes)
    stream.synchronize()
    return found
