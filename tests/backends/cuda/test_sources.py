"""The text of kernels: macros, files, generated code; and that an installed package has the files."""

import tomllib
from pathlib import Path

import miniinfer_cli
from miniinfer_cli.backends.cuda.codegen.sources import FOLDER, headers, kernel_text
from miniinfer_cli.backends.cuda.contract.steps import Kernel

ROOT = Path(__file__).parents[3]


def test_macros_come_before_the_file_and_code_behind_it() -> None:
    text = kernel_text(Kernel("relu", "reverse_sequence.cu", (("MI_T", "f32"), ("MI_INDEX", "int")), "// behind"))
    file = (FOLDER / "reverse_sequence.cu").read_text()
    assert text == f"#define MI_T f32\n#define MI_INDEX int\n{file}\n// behind"


def test_generated_code_has_the_types() -> None:
    assert kernel_text(Kernel("k", code="// code")) == '#include "types.cuh"\n\n// code'


def test_every_include_is_a_header_of_ours() -> None:
    names = set(headers())
    for path in FOLDER.rglob("*.cu*"):
        included = {line.split('"')[1] for line in path.read_text().splitlines() if line.startswith("#include")}
        assert included <= names, path.name


def test_the_package_brings_every_file_of_kernels() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = Path(miniinfer_cli.__file__).parent / "backends" / "cuda"
    brought = {path for pattern in data["miniinfer_cli.backends.cuda"] for path in package.glob(pattern)}
    assert brought == {path for path in FOLDER.rglob("*") if path.is_file()}
