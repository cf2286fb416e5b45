"""Errors in two wordings: whoever calls the Python functions reads of parameters, whoever types a command of flags."""

import ast
import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import engine_format
import miniinfer_cli
from miniinfer_cli import errors
from miniinfer_cli.errors import MiniinferError, ModelError, UsageError
from miniinfer_cli.wording import Wording, as_flags, joined
from tests.everywhere import parsed

PACKAGES = [Path(m.__file__ or "").parent for m in (engine_format, miniinfer_cli)]
# A plugin of polygraphy has flags of that command; the shim and the server are commands themselves. Adapters open plans by the
# server's modules: of it these alone speak of flags.
OF_THE_SERVER = ("app.py", "front_process.py", "http.py", "infer_request.py")
COMMAND_LINES = {PACKAGES[1] / room for room in ("cli", "polygraphy_plugin", "ort_shim")}
COMMAND_LINES |= {PACKAGES[1] / "server" / name for name in OF_THE_SERVER}
OF_COMPILERS = {"architectures.py", "nvrtc.py", "kernel_cache.py"}  # whose own options look like flags
# A name and a colon is a property of a style sheet.
FLAG = re.compile(r"(?<![\w-])--[a-z](?![a-z-]*:)|miniinfer (?:build|run|inspect|profile|COMMAND)\b")
IN_BOTH = re.compile(r"--[a-z-]+( [A-Zalways]+)? \([a-z_]+=\)|miniinfer_cli\.|\(--limit $")  # a note, which is stored as one text


def _texts(tree: ast.AST) -> list[tuple[int, str]]:
    """The string constants of a module that somebody may read, but for docstrings and what is said in flags alone."""
    passed_over: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "flags":
            passed_over.update(map(id, ast.walk(node.value)))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed_over.add(id(node.value))
    return [
        (n.lineno, n.value)
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in passed_over
    ]


def test_no_text_outside_the_command_line_names_flags_alone() -> None:
    found = [
        f"{path}:{line}: {text}"
        for package in PACKAGES
        for path in package.rglob("*.py")
        if COMMAND_LINES.isdisjoint((path, *path.parents)) and path.name not in OF_COMPILERS
        for line, text in _texts(ast.parse(path.read_text()))
        if FLAG.search(text) and not IN_BOTH.search(text)
    ]
    assert found == []


def test_a_text_in_flags_alone_would_be_found() -> None:
    tree = ast.parse('"--doc"\nf("give --shapes")\nWording("shapes=", flags="--shapes")\nf(f"run {x} --device cpu")')
    assert [text for _, text in _texts(tree) if FLAG.search(text)] == ["give --shapes", " --device cpu"]


KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, MiniinferError) and k is not MiniinferError]


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_out_of_each_kind_names_no_flag_in_python(kind: type[MiniinferError]) -> None:
    error = kind("wrong")
    assert not FLAG.search(str(error))
    assert error.in_flags() == f"wrong\n  hint: {as_flags(kind.way_out)}"


ANY = "g (float[n, 4] x, float[a, b] w) => (float[n, 4] y) { y = Relu(x) }"
ROWS = np.ones((3, 4), np.float32)
ASKED = {
    "unknown input": ({"min_shapes": {"z": (1,)}}, r"min_shapes, input 'z', 1: there is no input 'z'", "--min-shapes z:1: there"),
    "another rank": ({"opt_shapes": {"x": (1,)}}, r"opt_shapes, input 'x', 1: rank 1", "--opt-shapes x:1: rank 1"),
    "another size": ({"shapes": {"x": (2, 5)}}, r"shapes, input 'x', 2x5: axis 1 is 5", "--shapes x:2x5: axis 1"),
    "nothing of the name": ({"start_at": ["q"]}, "start_at: nothing in the model is named 'q'", "--start-at: nothing in the"),
    "no type": ({"start_at": ["y:f31"]}, "start_at: 'f31' is no type of a tensor", "--start-at: 'f31' is no type"),
    "nothing read": ({"start_at": ["w"]}, "start_at: no output depends on the value 'w'", "--start-at: no output depends"),
    "no input": ({"overridable": ["q"]}, "overridable: nothing in the model is named 'q'", "--overridable: nothing in the"),
    "no default": ({"overridable": ["w"]}, "overridable: the input 'w' has no init", "--overridable: the input 'w' has no init"),
    "no plugin": ({"plugins": ["no_such_module"]}, "plugins: no_such_module: Module", "--plugin no_such_module: Module"),
}


@pytest.mark.parametrize("case", ASKED)
def test_what_build_is_given_is_told_by_the_name_it_was_given_by(case: str) -> None:
    options, python, flags = ASKED[case]
    with pytest.raises(UsageError, match=re.escape(python)) as caught:
        miniinfer_cli.build(parsed(ANY), **options)
    assert not FLAG.search(str(caught.value))
    assert caught.value.in_flags().startswith(flags)


@pytest.mark.parametrize(
    ("options", "rows", "python", "flags"),
    [
        ({"min_shapes": {"x": (4, 4)}}, ROWS, "smaller min_shapes", "smaller --min-shapes"),
        ({"max_shapes": {"x": (2, 4)}}, ROWS, "larger max_shapes", "larger --max-shapes"),
    ],
)
def test_what_run_refuses_names_the_parameter_of_build(options: object, rows: object, python: str, flags: str) -> None:
    with miniinfer_cli.load(miniinfer_cli.build(parsed(ANY), **options), "cpu") as engine, pytest.raises(UsageError) as caught:
        engine.run({"x": rows, "w": ROWS})
    assert caught.value.hint == f"build the plan with {python}"
    assert caught.value.in_flags().endswith(f"build the plan with {flags}")


def test_a_limit_names_the_parameter() -> None:
    text = """g (float[1] x) => (float[1] y) { y = local.f(x) }
        <domain: "local", opset_import: ["": 16]> f (x) => (y) { y = Neg(x) }"""
    with pytest.raises(ModelError) as caught:
        miniinfer_cli.build(parsed(text, local=1), limits={"function_nodes": 0})
    assert caught.value.hint == "if you trust the file: limits={'function_nodes': 1}"
    assert caught.value.in_flags().endswith("if you trust the file: --limit function_nodes=1")


def test_hints_of_several_faults_are_joined_in_both_wordings() -> None:
    text = "g (float[1] x) => (float[1] y) { a = one.A(x) y = two.B(a, nothing) }"
    with pytest.raises(ModelError) as caught:
        miniinfer_cli.build(parsed(text, one=1, two=1))
    assert "plugins=[MODULE]" in str(caught.value) and not FLAG.search(str(caught.value))
    assert "--plugin MODULE" in caught.value.in_flags()


def test_a_text_in_two_wordings_stays_so() -> None:
    text = Wording("shapes=", flags="--shapes")
    for same in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert (same, as_flags(same)) == ("shapes=", "--shapes")
    assert as_flags(joined("; ", ["first", text])) == "first; --shapes"
    assert joined("; ", ["first", text]) == "first; shapes="
    assert type(joined("; ", ["a", "b"])) is str
