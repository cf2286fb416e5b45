"""The docstrings of the Python functions name the parameters that there are."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import engine_format
import miniinfer_cli
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.runtime.context import Context, Future
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.verification import compare, verify_plan


def _public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions of the interface, and the methods of what they give."""
    for function in (
        miniinfer_cli.build,
        miniinfer_cli.load,
        miniinfer_cli.tune,
        verify_plan,
        compare,
        engine_format.read_plan,
        engine_format.write_plan,
    ):
        yield function.__name__, function
    for kind in (Engine, Context, Future, engine_format.Plan):
        for name, member in vars(kind).items():
            if not name.startswith("_") and inspect.isfunction(member):
                yield f"{kind.__name__}.{name}", member


PUBLIC = dict(_public())


def _names(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_parameter_is_named(name: str) -> None:
    function = PUBLIC[name]
    parameters = [p for p in inspect.signature(function).parameters if p != "self"]
    told = _names(inspect.getdoc(function) or "")
    assert [p for p in parameters if p not in told] == []


@pytest.mark.parametrize(("function", "options"), [(miniinfer_cli.build, BuildOptions), (miniinfer_cli.load, DeviceOptions)])
def test_every_option_is_named_where_it_is_given_and_where_it_is_kept(function: Callable[..., Any], options: type) -> None:
    fields = {f.name for f in dataclasses.fields(options)}
    assert fields - _names(function.__doc__ or "") == set()
    assert fields - _names(options.__doc__ or "") == set()


@pytest.mark.parametrize(("function", "options"), [(miniinfer_cli.build, BuildOptions), (miniinfer_cli.load, DeviceOptions)])
def test_no_option_is_named_that_there_is_not(function: Callable[..., Any], options: type) -> None:
    """What the docstrings list, or have in backquotes, are parameters, values or names of the package."""
    fields = {f.name for f in dataclasses.fields(options)} | set(inspect.signature(function).parameters)
    listed = (function.__doc__ or "").split("``options``", 1)[1].partition(". Raises")[0].partition(":")[2]
    named = set(re.findall(r"(?<![\w.`])([a-z]+_[a-z_]+)\b(?!\.)", listed))
    assert len(named) > 3
    assert named - fields == set()
