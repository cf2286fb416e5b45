"""The files of lowerings: those that a model needs are imported, and what is registered stands where it is looked for."""

import json
import subprocess
import sys
from typing import Any

from miniinfer_cli.backends.cuda.contract.lowering_files import files_of

_EACH = """
import json, os
from miniinfer_cli.backends.cuda.contract import site
from miniinfer_cli.backends.cuda.contract import viewing
from miniinfer_cli.backends.cuda.contract.lowering_files import bring, bring_all, files_of

REGISTERS = (site._LOWERINGS, viewing._VIEWS, viewing._READERS, viewing._ASSEMBLED)

def registered(bring, *operation):
    # In a child, where nothing else has been brought.
    end, begin = os.pipe()
    if os.fork() == 0:
        bring(*operation)
        os.write(begin, json.dumps([[number, *key] for number, r in enumerate(REGISTERS) for key in r._lowerings]).encode())
        os._exit(0)
    os.close(begin)
    os.wait()
    with os.fdopen(end) as file:
        return {tuple(entry) for entry in json.load(file)}

wanted = registered(bring_all)
by_files = {}
for number, *operation in sorted(wanted):
    by_files.setdefault(files_of(*operation), []).append((number, *operation))
missing = [m for operations in by_files.values() for m in set(operations) - registered(bring, *operations[0][1:])]
print(json.dumps([len(wanted), len(by_files), missing]))
"""
_PROGRAM = """
import json, sys
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.backends.cuda.contract.target import Target
from tests.graph_text import typed_graph

graph = typed_graph('''
graph main(x: f32[4,8], w: f32[8,6]) {
  t = MatMul(x, w)
  y = Transpose(t) {perm=[1, 0]}
  return y
}
''')
made = make_program(graph, [v.type for v in graph.inputs], Target())
folder = "miniinfer_cli.backends.cuda.tactics."
print(json.dumps([[s.kind for s in made.steps], sorted(m.removeprefix(folder) for m in sys.modules if m.startswith(folder))]))
"""


def told(code: str) -> Any:
    """What the code prints, in a fresh Python."""
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_what_is_registered_for_an_operation_is_found_by_its_files_alone() -> None:
    registered, groups, missing = told(_EACH)
    assert registered > 250 and groups > 40
    assert missing == []


def test_what_has_no_lowering_is_looked_for_nowhere() -> None:
    assert files_of("", "Loop") == files_of("ai.onnx.ml", "ZipMap") == files_of("", "NoSuchOperation") == ()


def test_a_program_brings_the_lowerings_of_its_own_operations_alone() -> None:
    kinds, files = told(_PROGRAM)
    assert kinds == ["MatMul", "Transpose"]
    assert {"products.matmul", "movement.movement"} < set(files)
    others = {"products.einsum", "products.fused_matmul", "movement.gather", "movement.slicing", "convolution.convolution"}
    assert not others & set(files)
