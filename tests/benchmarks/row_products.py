"""Products of a few tokens in graphs of 40 copies with rotated weights and warm activations: microseconds and TB/s.

    python -m tests.benchmarks.row_products [--case NAME ...] [--forms 8] [--only STRIP,WARPS,STAGES,PARTS ...] [--out FILE]

Cases are the products of TinyLlama's decoding in f16 and by weights of 4 bits (f32 activations, groups of 128). Results are
compared with f64 first. Times are of programmatic launches, and with plain edges;
a weight is read again only after twice the L2 cache.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import Parameters
from miniinfer_cli.backends.cuda.contract.steps import Launch, Operand
from miniinfer_cli.backends.cuda.driver.device import Device, open_device
from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelCache
from miniinfer_cli.backends.cuda.driver.module import Function
from miniinfer_cli.backends.cuda.loading.target_sections import sources_of
from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import Finish
from miniinfer_cli.backends.cuda.tactics.products.row_product_sm90 import (
    PackedWeights,
    PlainWeights,
    RowForm,
    RowNorm,
    RowProduct,
    forms_of,
    row_product_launch,
)
from miniinfer_cli.ir import Array, DType
from tests.benchmarks.gate import COPIES, packed, residents, time_us

X, W, S, N, R, Y = (*map(Operand.input, range(5)), Operand.output(0))
GROUP = 128
LIMITS = {DType.F16: 1e-3, DType.F32: 2e-6}
"""Of errors."""


@dataclass(frozen=True, slots=True)
class Case:
    """A product: ``halves`` sums to an element, a norm in front, a residual behind, weights of 4 bits, or with k last."""

    features: int
    k: int
    halves: int = 1
    norm: bool = False
    nibbles: bool = False
    k_last: bool = False

    def product(self, tokens: int) -> RowProduct:
        """What the kernel is asked for."""
        dtype = DType.F32 if self.nibbles else DType.F16
        pitch = self.k if self.k_last else self.features * self.halves
        weights: Any = PlainWeights(W, pitch, k_first=not self.k_last)
        if self.nibbles:
            weights = PackedWeights(W, S, DType.F32, None, GROUP)
        norm = RowNorm(N, None, 1e-5, centred=False) if self.norm else None
        sizes = (tokens, self.features, self.k, dtype, dtype, self.k, self.features)
        return RowProduct(*sizes, weights, self.halves, norm)


_SHAPES = {
    "qkv": Case(2560, 2048, norm=True),
    "o": Case(2048, 2048),
    "up": Case(5632, 2048, 2, norm=True),
    "down": Case(2048, 5632),
    "head": Case(32000, 2048, norm=True),
}
CASES = {
    **{f"f16_{name}": case for name, case in _SHAPES.items()},
    "f16_classes": Case(1000, 2048, k_last=True),
    **{f"int4_{name}": replace(case, nibbles=True) for name, case in _SHAPES.items()},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument(
        "--forms", type=int, default=8, help="forms that are timed of each, those first that the estimate likes best"
    )
    parser.add_argument("--only", nargs="+", help="forms to time: strip,warps,stages,parts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where all rows go as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with open_device(0) as device:
        for name in options.case:
            p = CASES[name].product(options.tokens)
            listed = [RowForm(*map(int, o.split(","))) for o in options.only or ()]
            measured = measure(device, name, p, listed or forms_of(p, device.multiprocessors)[: options.forms], options.rounds)
            rows += measured
            print(*(_line(row) for row in sorted(measured, key=lambda r: float(r["early_us"]))), sep="\n", flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    return int(any(not row["right"] for row in rows))


def _line(row: dict[str, Any]) -> str:
    form = ",".join(str(int(value)) for value in row["form"].values())
    text = f"{row['case']} ({form}) links {row['early_us']:.2f} us {row['tb_s']:.2f} TB/s, plain {row['plain_us']:.2f}"
    text += f", {row['registers']} registers, {row['shared_nbytes']} shared, {row['residents']} beside, error {row['error']:.1e}"
    return text + ("" if row["right"] else " WRONG")


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """What lies in memory before the launch, and what the result is to be, in f64."""

    arrays: dict[Operand, Array]
    exact: Array

    def error(self, result: Array) -> float:
        """Of a result, relative to the exact one."""
        return float(np.linalg.norm(result.astype(np.float64) - self.exact) / np.linalg.norm(self.exact))


def data_of(case: Case, p: RowProduct) -> Data:
    """Random operands."""
    rng = np.random.default_rng(p.k + p.features)
    kind: Any = np.float32 if case.nibbles else np.float16
    x = rng.standard_normal((p.tokens, p.k)).astype(kind)
    scale, r = rng.uniform(0.5, 1.5, p.k).astype(kind), rng.standard_normal((p.tokens, p.features)).astype(kind)
    columns = p.features * p.halves
    if case.nibbles:
        q = rng.integers(0, 16, (p.k, columns), np.uint8)
        scales = (rng.uniform(0.5, 1.5, (p.k // GROUP, columns)) / np.sqrt(p.k) / 5).astype(np.float32)
        w, s = packed_nibbles(q), _by_groups(scales)
        wide = (q.astype(np.float32) - 8) * np.repeat(scales, GROUP, 0)
    else:
        w, s = (rng.standard_normal((p.k, columns), np.float32) / np.sqrt(p.k)).astype(kind), np.zeros(1, kind)
        wide = w.astype(np.float32)
        w = np.ascontiguousarray(w.T) if case.k_last else w
    rows = x.astype(np.float64)
    if p.norm is not None:
        rows = rows / np.sqrt((rows**2).mean(1, keepdims=True) + p.norm.epsilon) * scale
    sums = rows @ wide.astype(np.float64)
    if p.halves == 2:
        sums = sums[:, : p.features] / (1 + np.exp(-sums[:, : p.features])) * sums[:, p.features :]
    return Data({X: x, N: scale, R: r, S: s, W: w, Y: np.full((p.tokens, p.features), np.nan, kind)}, sums + r)


def launch_of(p: RowProduct, form: RowForm) -> Launch[Operand]:
    """The launch, with a residual."""
    text = "s / (1.0f + expf(-s)) * second" if p.halves == 2 else "s"
    call = f"{{ y = narrow<MI_D>({text} + widen(x0)); }}"
    finish = Finish("MI_DEVICE void body() {}", call, (p.dtype,), (1,), (p.features,))
    return row_product_launch(p, form, finish, X, Y, [R])


def measure(device: Device, name: str, p: RowProduct, forms: Sequence[RowForm], rounds: int) -> list[dict[str, Any]]:
    """A row for each form."""
    case = CASES[name]
    data = data_of(case, p)
    read = data.arrays[W].nbytes + (data.arrays[S].nbytes if case.nibbles else 0)
    sets = max(COPIES, -(-2 * device.l2_nbytes // read // COPIES) * COPIES)
    found = []
    with ExitStack() as closing:
        stream = closing.enter_context(device.create_stream())

        def room(operand: Operand) -> int:
            array = data.arrays[operand]
            address = closing.enter_context(device.allocate(array.nbytes)).address
            stream.copy_to_device(address, array.ctypes.data, array.nbytes)
            stream.synchronize()
            return address

        fixed = {operand: room(operand) for operand in (X, N, R, S)}
        weights, results, result = [room(W) for _ in range(sets)], [room(Y) for _ in range(2)], data.arrays[Y]
        launches = [launch_of(p, form) for form in forms]
        codes = KernelCache(None).compile_many(sources_of([launch.kernel for launch in launches], device.arch))
        for form, launch, code in zip(forms, launches, codes, strict=True):
            function = closing.enter_context(device.load(code)).function("row_product")
            function.allow_shared(launch.shared_nbytes)
            parameters = [packed(device, launch, {**fixed, W: weights[n], Y: results[n % 2]}) for n in range(sets)]

            def enqueue(
                copy: int,
                *,
                early: bool = False,
                launch: Launch[Operand] = launch,
                function: Function = function,
                parameters: list[Parameters] = parameters,
            ) -> None:
                attributes = replace(launch.attributes, programmatic=early)
                stream.launch(function, launch.grid, launch.block, launch.shared_nbytes, parameters[copy], attributes)

            stream.fill(results[0], 0xFF, result.nbytes)
            enqueue(0)
            stream.copy_to_host(result.ctypes.data, results[0], result.nbytes)
            stream.synchronize()
            error = data.error(result)
            plain = time_us(device, stream, enqueue, sets, rounds)

            def link(copy: int, enqueue: Callable[..., None] = enqueue) -> None:
                enqueue(copy, early=copy % COPIES > 0)

            early = time_us(device, stream, link, sets, rounds)
            found.append(
                {
                    "case": name, "form": asdict(form), "error": error, "right": error < LIMITS[p.dtype],
                    "plain_us": plain, "early_us": early, "tb_s": read / early / 1e6, "blocks": launch.grid[0],
                    "shared_nbytes": launch.shared_nbytes, "registers": function.resources.registers,
                    "spilled": function.resources.local_nbytes, "residents": residents(device, function, launch),
                }
            )  # fmt: skip
    return found


def packed_nibbles(q: Array) -> Array:
    """Numbers of 4 bits [k, features] as the kernel reads them, features and k being whole."""
    k, features = q.shape
    lanes = q.reshape(k // 16, 4, 2, 2, features // 64, 4, 2, 8)  # t, p, h; strip, j, r, g
    low, high = lanes.transpose(6, 4, 0, 7, 1, 5, 3, 2).reshape(2, -1)
    return np.ascontiguousarray(low | high << 4)


def _by_groups(scales: Array) -> Array:
    groups, features = scales.shape
    return np.ascontiguousarray(scales.reshape(groups, features // 64, 4, 2, 8).transpose(1, 0, 4, 2, 3))


if __name__ == "__main__":
    sys.exit(main())
