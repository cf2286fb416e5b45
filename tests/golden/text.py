"""A program as text: a line for every step, and one for each thing that it does, with nothing of where memory lies.

    == bert_base f16 batch 1, no libraries
    input input_ids = i64[1,128]
    step /layer.0/MatMul_1 op=FusedMatMul
      launch args=/layer.0/Add_1:0,layer.0.query.weight,i32:768 block=128,1,1 grid=12,2,1 kernel=gemm shared=16384 text=0f5e...
    host /GatherND op=GatherND in=... out=f32[?,4] reason=... tactic=host
    output logits = /classifier/Add:0

An operand is a value's name and a byte offset inside it, if not 0: an input, a weight, ``STEP:NUMBER`` (an output of that step),
``joined:`` and the first output that is a part of it, ``scratch`` (of the step itself), a form derived from weights, a table by
the digest of its contents. Steps of one name are told apart by ``~2``, ``~3``. Programs of branches, bodies and late parts, and
those that make derived weights, follow, each once.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from miniinfer_cli.backends.choosing import HEURISTIC
from miniinfer_cli.backends.cuda.codegen.sources import headers, kernel_text, reached_headers
from miniinfer_cli.backends.cuda.contract.launch_attributes import NO_ATTRIBUTES
from miniinfer_cli.backends.cuda.contract.program import CudaProgram, DeviceStep, HostStep, HostWork, Place
from miniinfer_cli.backends.cuda.contract.steps import Copy, Derived, Fill, Kernel, Launch, LibraryCall, Once, Repeat, Round, flat
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.tensor_map import TensorMap
from miniinfer_cli.backends.cuda.making.maker import make_program
from miniinfer_cli.ir import Constant, DType, Graph, TensorType, Type, dtype_of
from miniinfer_cli.ir.dims import evaluate, names_in
from miniinfer_cli.planning.shape_values import shape_inputs
from tests.golden.libraries import Answers, problem_text

_OPEN = 5
"""What sizes that data decide are taken to be, for the programs of bodies and late parts."""


def program_text(title: str, graph: Graph, inputs: Sequence[Type | None], answers: Answers) -> str:
    """The program for these inputs, and all programs within it."""
    return "".join(f"{line}\n" for line in _Writer(answers).program(title, graph, inputs))


def target_of(answers: Answers) -> Target:
    """What programs are made for: as they are untuned, and without programmatic dependent launches.

    Whatever turns either off belongs here, once there is something to turn off.
    """
    arch, multiprocessors, shared = (answers.device[name] for name in ("arch", "multiprocessors", "shared_nbytes"))
    return Target(arch, multiprocessors, shared, tf32=True, supports=answers.supports, policy=HEURISTIC)


class _Writer:
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._target = target_of(answers)
        self._derived: set[str] = set()

    def program(
        self, title: str, graph: Graph, inputs: Sequence[Type | None], more: Mapping[str, Any] | None = None
    ) -> Iterator[str]:
        program = make_program(graph, inputs, self._target, **(more or {}))
        names = _Names(program)
        yield f"== {title}"
        for value, slot in zip(graph.inputs, program.input_slots, strict=True):
            yield f"input {_word(value.name)} = {program.slots[slot].type}"
        for step in program.steps:
            yield from self._step(step, names)
        for name, slot in zip(graph.output_names, program.output_slots, strict=True):
            yield f"output {_word(name)} = {names.slot(slot)}"
        for derived in names.derived:
            yield from self._derive(title, derived)
        for step in program.steps:
            if isinstance(step, HostStep):
                for kind, inner, types in _inner_programs(program, step):
                    yield from self._inner(f"{title}, {kind} of {names.step(step)}", inner, types)

    def _step(self, step: DeviceStep | HostStep, names: "_Names") -> Iterator[str]:
        if isinstance(step, HostStep):
            read = ",".join("-" if s is None else names.slot(s) for s in step.inputs)
            made = ";".join(_word(str(names.program.slots[s].type)) for s in step.outputs)
            yield f"host {names.step(step)} in={read} op={step.kind} out={made} reason={_word(step.reason)} tactic={step.tactic}"
            return
        yield f"step {names.step(step)} op={step.kind}"
        for action in step.actions:
            # Round by round, so that it does not matter how a program says that something is done again and again.
            for number in range(action.rounds) if isinstance(action, Repeat) else (0,):
                for once in flat([action]):
                    yield f"  {self._action(once, number, names)}"

    def _action(self, action: Once[Place], number: int, names: "_Names") -> str:
        match action:
            case Launch(kernel, grid, block, arguments, shared_nbytes, attributes):
                made = {
                    "args": ",".join(_argument(a, number, names) for a in arguments),
                    "block": ",".join(map(str, block)),
                    "grid": ",".join(map(str, grid)),
                    "kernel": kernel.name,
                    "shared": shared_nbytes,
                    "text": _text_digest(kernel),
                }
                if kernel.arch:
                    made["arch"] = kernel.arch
                if attributes != NO_ATTRIBUTES:
                    made["attributes"] = _word(str(attributes))
                return _line("launch", made)
            case Copy(target, source, nbytes):
                return _line("copy", {"from": names.place(source), "nbytes": nbytes, "to": names.place(target)})
            case Fill(target, byte, nbytes):
                return _line("fill", {"byte": byte, "nbytes": nbytes, "to": names.place(target)})
            case LibraryCall(problem, operands):
                kind, asked = problem_text(problem).split(" ", 1)
                read = ",".join(map(names.place, operands))
                return f"{kind} answer={self._answers.answer(problem)} operands={read} {asked}"
        raise TypeError(f"no such action: {action!r}")

    def _derive(self, title: str, derived: Derived) -> Iterator[str]:
        """The program that makes a weight of another form, once for all weights of one shape."""
        what = f"{derived.key} of {','.join(f'{s.dtype}{_shape(s.shape)}' for s in derived.sources)}"
        if what not in self._derived:
            self._derived.add(what)
            graph = Graph(derived.key)
            weights = [graph.add_constant(s, f"w{i}") for i, s in enumerate(derived.sources)]
            graph.set_outputs(graph.inline(derived.graph, weights))
            yield from self.program(f"{title}, weights by {what}", graph, ())

    def _inner(self, title: str, graph: Graph, types: Sequence[Type | None]) -> Iterator[str]:
        deciding = shape_inputs(graph)
        if deciding:
            yield f"== {title}"
            yield f"the contents of inputs {sorted(deciding)} decide"
        else:
            yield from self.program(title, graph, types)


def _inner_programs(program: CudaProgram, step: HostStep) -> Iterator[tuple[str, Graph, list[Type | None]]]:
    """The graphs that the step runs as programs of their own, with the types of their inputs."""
    node = step.node
    given = [None if s is None else _settled(program.slots[s].type) for s in step.inputs]
    if step.tactic is HostWork.LATE:
        assert node.body is not None
        yield "late part", node.body, given
    elif node.op == "If":
        for name, graph in sorted(node.graphs.items()):
            yield name, graph, given[1:]
    elif node.op == "Loop":
        yield "body", node.graphs["body"], [TensorType(DType.I64, ()), TensorType(DType.BOOL, ()), *given[2:]]
    elif node.graphs:
        raise AssertionError(f"say here what the bodies of {node.op} are given")


def _settled(type: Type | None) -> Type | None:
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    sizes = (evaluate(d, dict.fromkeys(names_in(d), _OPEN)) for d in type.shape)
    return TensorType(type.dtype, tuple(size for size in sizes if size is not None))


class _Names:
    """What the slots of a program are called."""

    def __init__(self, program: CudaProgram) -> None:
        self.program = program
        self.derived: list[Derived] = []
        self._steps: dict[Any, str] = {}
        self._weights: dict[Constant, str] = {}
        for value in program.graph.all_constants():
            if value.constant is not None:
                self._weights.setdefault(value.constant, _word(value.name))
        self._slots = {s: _word(v.name) for v, s in zip(program.graph.inputs, program.input_slots, strict=True)}
        seen: Counter[str] = Counter()
        for step in program.steps:
            seen[step.label] += 1
            count = seen[step.label]
            name = self._steps[step] = _word(step.label or step.kind) + (f"~{count}" if count > 1 else "")
            made = step.writes if isinstance(step, DeviceStep) else step.outputs
            for number, slot in enumerate(made):
                self._slots[slot] = f"{name}:{number}"
                root = program.slots[slot].root
                if root != slot:  # a part of what no step makes as a whole
                    self._slots.setdefault(root, f"joined:{name}:{number}")

    def step(self, step: DeviceStep | HostStep) -> str:
        return self._steps[step]

    def place(self, place: Place) -> str:
        behind = self.program.behind_root(place)
        name = "scratch" if place.scratch else self.slot(behind.number)
        return f"{name}+{behind.offset}" if behind.offset else name

    def slot(self, number: int) -> str:
        root = self.program.slots[number].root
        if root not in self._slots:
            self._slots[root] = self._constant(root)
        return self._slots[root]

    def _constant(self, number: int) -> str:
        slot = self.program.slots[number]
        if slot.derived is not None:
            self.derived.append(slot.derived)
            return f"{_word(slot.derived.key)}({';'.join(map(self._weight, slot.derived.sources))})"
        if slot.handle is not None and slot.handle in self._weights:
            return self._weights[slot.handle]
        if slot.contents is not None:
            contents = np.ascontiguousarray(slot.contents)
            return f"table:{dtype_of(contents)}{_shape(slot.contents.shape)}#{_digest(contents.tobytes())}"
        assert slot.handle is not None, f"slot {number} comes from nowhere: {slot}"
        return self._weight(slot.handle)

    def _weight(self, handle: Constant) -> str:
        return self._weights.get(handle) or f"made:{handle.dtype}{_shape(handle.shape)}"


@cache
def _text_digest(kernel: Kernel) -> str:
    """Of the kernel's text, and that of the headers which it includes."""
    text = kernel_text(kernel)
    return _digest("".join([text, *(headers()[name] for name in sorted(reached_headers(text)))]).encode())


def _argument(argument: Any, number: int, names: _Names) -> str:
    match argument:
        case Place():
            return names.place(argument)
        case TensorMap():
            return _word(str(argument.over(names.place(argument.operand))))
        case Round():
            return _number(argument.value(number))
    return _number(argument)


def _number(value: Any) -> str:
    array = np.asarray(value)
    shown = ",".join(repr(item) for item in array.reshape(-1).tolist())
    return f"{array.dtype.name}:{shown}" if array.ndim == 0 else f"{array.dtype.name}{_shape(array.shape)}:({shown})"


def _shape(shape: Sequence[int]) -> str:
    return "[" + "x".join(map(str, shape)) + "]"


def _line(kind: str, fields: Mapping[str, Any]) -> str:
    return " ".join([kind, *(f"{k}={v}" for k, v in sorted(fields.items()))])


def _word(text: str) -> str:
    return re.sub(r"\s", "_", text)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
