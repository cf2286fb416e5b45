"""Every file of kernels, and generated kernels of every form, compile for a GPU, with none there.

Each for one of the architectures in turn; for all of them what asks which one it is compiled for, and with MINIINFER_NVRTC=1
everything.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.backends.cuda.codegen.sources import FOLDER
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.tactics.products.large_product_sm90 import LargeForm
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import bias_finish, product_launch
from miniinfer_cli.backends.cuda.tactics.products.token_forms import Form, TokenProduct
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.ir import DType, Graph, TensorType, Type, dtype_of
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from tests.conformance.cases import Case, all_cases
from tests.emulation.architectures import ARCHITECTURES, compile_for, fitting_architectures
from tests.passes.quantized_graphs import quantized_product
from tests.sm90_cases.byte_products import BYTE_FORMS, MANY, byte_case, many_case
from tests.sm90_cases.heads import CASES, TURNED, heads_case
from tests.sm90_cases.large import large, large_case

FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.cu"))
ALL = bool(os.environ.get("MINIINFER_NVRTC"))
# Tensor cores, and conversions of 8 bits that only newer ones have.
ASKING = ("attention.cu", "quantize.cu")
GENERATED = 12  # kernels written from a graph that are compiled
CASES_OF_A_KIND = 1  # of the suite's, which differ in types and sizes alone: the commonest kind has hundreds
F16, F32, I64 = np.float16, np.float32, np.int64
_CACHED: list[list[Any]] = [
    [
        *(((1, heads, 1, 64), F16) for heads in (32, 4, 4)),
        *(((1, 4, rows, 64), F16),) * 2,
        *(((1,), I64),) * 2,
        *(((1, 1, 32), F16),) * 2,
    ]
    for rows in (256, 8192)
]
# Nodes for the kernels that no case of the suite launches, most because it is too small: operation, domain, inputs (a shape and
# a type, or the contents), attributes. None of them is run; they are lowered with libraries that solve nothing, and all.
LARGE: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("Attention", "", [((1, 8, 1, 64), F16), ((1, 8, 8192, 64), F16), ((1, 8, 8192, 64), F16)], {"nan_rows": "zero"}),
    ("Attention", "", [((1, 8, 1, 64), F16), ((1, 8, 512, 64), F16), ((1, 8, 512, 64), F16), ((1, 512), np.bool_)], {}),
    ("Attention", "", [((1, 2, 64, 64), F16), ((1, 2, 64, 64), F16), ((1, 2, 64, 64), F16)], {"nan_rows": "zero"}),
    *(("CachedAttention", "miniinfer", operands, {"n_outputs": 3}) for operands in _CACHED),
    ("ConvNHWC", "miniinfer", [((1, 14, 14, 32), F16), ((32, 3, 3, 1), F16)], {"group": 32, "kernel_shape": [3, 3]}),
    ("ConvNHWC", "miniinfer", [((64, 32, 32, 3), F16), np.ones((64, 7, 7, 3), F16)], {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    ("ConvNHWC", "miniinfer", [((1, 14, 14, 32), F16), np.ones((32, 3, 3, 1), F16)], {"group": 32, "kernel_shape": [3, 3]}),
    ("MaxPoolNHWC", "miniinfer", [((1, 8, 8, 16), F16)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("Excitation", "miniinfer", [((1, 1, 1, 96), F16), ((4, 1, 1, 96), F16), ((96, 1, 1, 4), F16)], {"activation": "Swish"}),
    (
        "SqueezeExcitation",
        "miniinfer",
        [((1, 5, 5, 96), F16), np.ones((4, 1, 1, 96), F16), np.ones((96, 1, 1, 4), F16)],
        {"activation": "Swish"},
    ),
    ("ConstantOfShape", "", [np.array([100, 100])], {"value": np.array([1.5], F32)}),
    ("EyeLike", "", [((100, 100), F32)], {}),
    ("OneHot", "", [((300,), I64), np.array([100]), ((2,), F32)], {}),
    ("Range", "", [np.array(0), np.array(10_000), np.array(1)], {}),
    ("Multinomial", "", [((2, 300), F32)], {"sample_size": 10}),
    ("MatMul", "", [((16, 8192), F32), ((8192, 16), F32)], {}),
    ("MatMul", "", [((2048, 512), F16), ((512, 1001), F16)], {}),
    ("MatMul", "", [((1, 512), F16), np.ones((512, 512), F16)], {}),
    ("DequantizeLinear", "", [np.ones((256, 64), ml_dtypes.int4), np.ones((4, 64), F16)], {"axis": 0, "block_size": 64}),
    ("MatMulInteger", "", [((16, 64), np.uint8), np.ones((64, 16), np.int8)], {}),
    ("Gemm", "", [((16, 64), F32), ((64, 16), F32), ((16, 1), F32)], {}),
    ("LSTM", "", [((3, 1, 64), F32), ((1, 2048, 64), F32), ((1, 2048, 512), F32)], {"hidden_size": 512}),
    ("LSTM", "", [((3, 64, 64), F32), ((1, 2048, 64), F32), ((1, 2048, 512), F32)], {"hidden_size": 512}),
    ("LayerNormalization", "", [((2, 1 << 20), F32), ((1 << 20,), F32)], {"n_outputs": 3}),
    ("ScatterElements", "", [((500,), F32), ((2000,), I64), ((2000,), F32)], {"reduction": "add"}),
    ("ScatterElements", "", [((500,), F32), ((2000,), I64), ((2000,), F32)], {}),
    ("Transpose", "", [((256, 256), F16)], {"perm": [1, 0]}),
    ("Trilu", "", [((64, 64), F32)], {}),
]


@cache
def kernels_by_file() -> dict[str, list[Kernel]]:
    """The kernels that the suite's cases of one operator launch, by file; generated ones under an empty name."""
    found: dict[str, dict[Kernel, None]] = defaultdict(dict)
    for case in _some_of_each(all_cases()):
        try:
            graph = import_model(case.model)
            inputs, _ = next(case.runs())
            program = make_program(graph, [_type(v.type, inputs.get(v.name)) for v in graph.inputs], Target())
        except (MiniinferError, StopIteration):
            continue
        for kernel in program.kernels:
            found[kernel.file][kernel] = None
    for op, domain, operands, attrs in LARGE:
        graph = Graph(op)
        values = [
            graph.add_constant(o, f"c{i}")
            if isinstance(o, np.ndarray)
            else graph.add_input(f"x{i}", TensorType(dtype_of(np.empty(0, o[1])), o[0]))
            for i, o in enumerate(operands)
        ]
        outputs = [graph.new_value("y") for _ in range(attrs.get("n_outputs", 1))]
        graph.add_node(op, values, outputs, domain=domain, attrs={k: v for k, v in attrs.items() if k != "n_outputs"})
        graph.set_outputs(outputs)
        for target in (Target(), Target(supports=lambda problem: True)):
            for kernel in make_program(graph, [v.type for v in graph.inputs], target).kernels:
                found[kernel.file][kernel] = None
    whole: dict[str, Any] = {"channels": 16, "symmetric": True}
    forms = ({"y_dtype": DType.I8, "between": True}, {"x_dtype": DType.I8}, {"features": 16, "group": 16}, {"channels": 3})
    for options in forms:
        graph = quantized_product(**(whole | options))
        fuse_quantized(graph)
        target = Target(arch=90 if "channels" in options else 80, multiprocessors=1)
        for kernel in make_program(graph, [v.type for v in graph.inputs], target).kernels:
            found[kernel.file][kernel] = None
    for kernel in (*(byte_case(*c).launch.kernel for c in BYTE_FORMS), *(many_case(*c).launch.kernel for c in MANY)):
        found[kernel.file][kernel] = None
    for name in (DType.F16, DType.BF16, DType.F32):
        product = TokenProduct(40, 100, 256, name, name, 256, 104)
        operands = Operand.input(0), Operand.input(1), Operand.output(0)
        launch = product_launch(product, Form(48, 2, 2, 2), bias_finish(name), *operands, [Operand.input(2)])
        found[launch.kernel.file][launch.kernel] = None
        form = LargeForm(2, 64, 2, 2)
        kernel = large_case(large(64, 64, 64, name), form, residual=name is not DType.F32).launch.kernel
        found[kernel.file][kernel] = None
        for p, cut in (*CASES, *TURNED) if name is DType.BF16 else CASES[:1] if name is DType.F16 else ():
            kernel = heads_case(replace(p, dtype=name), cut).launch.kernel
            found[kernel.file][kernel] = None
    return {file: list(kernels) for file, kernels in found.items()}


def _some_of_each(cases: list[Case]) -> Iterator[Case]:
    """Cases of one kind have the same operations, with the same inputs and attributes in use."""
    counts: Counter[Any] = Counter()
    for case in cases:
        if case.kind == "node":
            kind = frozenset(
                (n.op_type, *map(bool, n.input), *sorted(a.name for a in n.attribute)) for n in case.model.graph.node
            )
            counts[kind] += 1
            if ALL or counts[kind] <= CASES_OF_A_KIND:
                yield case


def _least_forms(kernels: list[Kernel]) -> list[Kernel]:
    """One kernel for each function, of the smallest sizes: the largest tiles take the compiler ten times as long."""

    def size(kernel: Kernel) -> int:
        return sum(8 if value == "f64" else int(value) if value.isdecimal() else 1 for _, value in kernel.defines)

    return list({k.name: k for k in sorted(kernels, key=size, reverse=True)}.values())


def _type(declared: Type | None, value: Any) -> Type | None:
    if not isinstance(value, np.ndarray) or value.dtype == object:
        return declared
    return TensorType(dtype_of(value), value.shape, value if value.size <= 64 and value.dtype.kind in "iu" else None)


def test_every_file_is_covered() -> None:
    assert set(FILES) - set(kernels_by_file()) == set()


def architectures(number: int, name: str = "") -> tuple[int, ...]:
    """Those that the kernel of this number is compiled for."""
    return ARCHITECTURES if ALL or name in ASKING else (ARCHITECTURES[number % len(ARCHITECTURES)],)


def test_files_that_ask_for_the_architecture_are_compiled_for_all() -> None:
    pairs = [(name, arch) for number, name in enumerate(FILES) for arch in architectures(number, name)]
    assert {name for name, _ in pairs} == set(FILES)
    assert {arch for _, arch in pairs} == set(ARCHITECTURES)
    for name in ASKING:
        assert [arch for n, arch in pairs if n == name] == list(ARCHITECTURES)
    of_all = (name for name in FILES if not name.startswith("sm90/"))
    with_tensor_cores = {name for name in of_all if '"mma.cuh"' in (FOLDER / name).read_text()}
    assert with_tensor_cores <= set(ASKING)


@pytest.mark.parametrize(("number", "file"), list(enumerate(FILES)), ids=FILES)
def test_a_kernel_of_every_file(number: int, file: str) -> None:
    kernels = kernels_by_file()[file]
    for kernel in kernels if ALL else _least_forms(kernels):
        for arch in fitting_architectures(kernel, architectures(number, file)):
            assert compile_for(kernel, arch)[:4] == b"\x7fELF"


def test_generated_kernels() -> None:
    kernels = kernels_by_file()[""]
    assert len(kernels) > GENERATED
    for number, kernel in enumerate(kernels[:: len(kernels) // GENERATED]):
        for arch in fitting_architectures(kernel, architectures(number)):
            assert compile_for(kernel, arch)[:4] == b"\x7fELF"
