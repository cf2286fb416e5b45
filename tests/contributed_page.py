"""docs/com-microsoft.md, written from the register: ``python -m tests.contributed_page``."""

from pathlib import Path

from miniinfer_cli.onnx_import import meaning  # noqa: F401  (registers the operators)
from miniinfer_cli.onnx_import.registry import Contributed, all_contributed

PAGE = Path(__file__).parents[1] / "docs" / "com-microsoft.md"
_HEAD = """\
# Operators of com.microsoft

Written by `python -m tests.contributed_page` from the register; a test holds that it is up to date, and that the attributes and
operands are those that ONNX Runtime names. ONNX Runtime adds these operators to ONNX's, and its optimizer and model builder write
them. When a model is read, each becomes operations of ai.onnx, which passes, devices and `--verify` then treat as any others.

- Weights of 2, 4 and 8 bits in blocks stay so in the plan: integers of as many bits behind a DequantizeLinear.
- `GroupQueryAttention` is a pure function: the past goes in, the present comes out, as long as the past where that has room (a
  shared buffer) and as long as the tokens where it has not. What lies in it beyond the tokens is not defined.
  `local_window_size` counts the token itself: with 1 it sees itself alone.
- An index of `GatherBlockQuantized` outside of the table is an error, where ONNX Runtime gives zeros.
- `MoE` and `QMoE` compute all experts for all tokens: right at any size, and slower than what skips experts.
- Results differ from ONNX Runtime's where that rounds more: `DynamicQuantizeLSTM` keeps what it multiplies in f32.
- An operator that is not listed is an error that tells its name once, and how many nodes are of it. Where tokenizers or other
  string operators stand before the network, `build --start-at VALUE` begins behind them.

Some attributes may stand there with one value alone, which is told in the last column; ignored ones bear on speed or last digits.

| operator | becomes | attributes read | fixed, ignored, absent |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(map(_row, all_contributed()))


def _row(known: Contributed) -> str:
    rest = [f"`{name}` {value!r}" for name, value in sorted(known.fixed.items())]
    rest += [f"`{name}` ignored" for name in sorted(known.ignored)]
    rest += [f"input {index} (`{name}`) absent" for index, name in sorted(known.absent.items())]
    return (
        f"| `{known.op}` | {known.meaning.replace('``', '`')} | {' '.join(f'`{n}`' for n in known.read)} | {', '.join(rest)} |\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
