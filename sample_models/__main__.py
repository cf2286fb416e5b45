"""The command line of the generators: ``python -m sample_models NAME|all -o DIR``."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx

from sample_models.catalogue import FAMILIES, generate
from sample_models.graph_writer import FLOATS
from sample_models.request import Request


def main(arguments: list[str] | None = None) -> int:
    """Generate the models asked for; 0, or argparse's 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m sample_models", description="Generate networks with seeded random weights.")
    parser.add_argument("names", nargs="+", metavar="NAME", choices=["all", *FAMILIES], help=f"all, or of: {', '.join(FAMILIES)}")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "generated", help="folder to write into")
    parser.add_argument("--batch", type=_size("batch"), default="dynamic", metavar="N|dynamic", help="default: dynamic")
    parser.add_argument("--seq", type=_size("seq"), default="dynamic", metavar="N|dynamic", help="default: dynamic")
    parser.add_argument("--dtype", choices=FLOATS, default="f32", help="of weights and activations (default: f32)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    parser.add_argument("--small", action="store_true", help="the same structure, a few layers and channels")
    parser.add_argument("--external-data", action="store_true", help="weights of 1 KiB and more in a file beside the model")
    args = parser.parse_args(arguments)
    names = [name for name, family in FAMILIES.items() if name in args.names or ("all" in args.names and family.in_all)]
    args.output.mkdir(parents=True, exist_ok=True)
    for name in names:
        start = time.perf_counter()
        path = args.output / f"{name}.onnx"
        data = path.with_suffix(".onnx.data") if args.external_data else None
        model = generate(name, Request(args.batch, args.seq, args.small), dtype=args.dtype, seed=args.seed, data=data)
        onnx.save(model, path)
        nbytes = path.stat().st_size + (data.stat().st_size if data else 0)
        print(f"{path}: {len(model.graph.node)} nodes, {nbytes / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s")
    return 0


def _size(dynamic: str) -> Callable[[str], int | str]:
    """An argparse type: a positive number, or the word ``dynamic`` for the dimension's name."""

    def parse(text: str) -> int | str:
        if text == "dynamic":
            return dynamic
        if not text.isdecimal() or int(text) == 0:
            raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor 'dynamic'")
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
