"""The names of onnxruntime: each is there, or refused by name with a hint; the page says which."""

import importlib
import re

import onnxruntime
import pytest
from onnxruntime.capi import _pybind_state

from miniinfer_cli import ort
from miniinfer_cli.ort import capi
from miniinfer_cli.ort.lacking import LACKING, LACKING_IN_CAPI, LACKING_MEMBERS, LACKING_MODULES
from tests import ort_page

# What is in onnxruntime's namespace by the way: modules that it imports, and helpers that begin with an underscore.
BY_THE_WAY = {"contextlib", "import_capi_exception", "onnxruntime_validation"}


def names_of(module: object) -> set[str]:
    """Those that do not begin with an underscore, and are no module within that somebody has imported by its own name."""
    inner = f"{getattr(module, '__name__', '')}."
    return {n for n in dir(module) if not n.startswith("_") and getattr(getattr(module, n), "__name__", "") != inner + n}


def test_every_name_of_the_package_is_there_or_refused_by_name():
    known = {*ort.__all__, *LACKING}
    assert names_of(onnxruntime) - BY_THE_WAY - known == set()
    assert set(LACKING) & set(ort.__all__) == set()


@pytest.mark.parametrize("kind", ort_page.CLASSES)
def test_every_name_of_a_class_is_there_or_refused_by_name(kind):
    refused = set(LACKING_MEMBERS.get(kind, {}))
    theirs = names_of(getattr(onnxruntime, kind))
    assert theirs - set(ort_page.members(kind)) - refused == set()
    assert refused & set(ort_page.members(kind)) == set()


def test_exceptions_are_there():
    theirs = {n for n in dir(_pybind_state) if isinstance(k := getattr(_pybind_state, n), type) and issubclass(k, Exception)}
    ours = set(capi.onnxruntime_pybind11_state.__all__)
    assert theirs - ours - {"ModelLoadCanceled", "ModelRequiresCompilation", "NotFound", "DeviceReset"} == set()


@pytest.mark.parametrize("module", ["_pybind_state", "onnxruntime_inference_collection", "onnxruntime_pybind11_state"])
def test_inner_modules_have_what_programs_take_from_them(module):
    ours = importlib.import_module(f"miniinfer_cli.ort.capi.{module}")
    for name in ("InferenceSession", "OrtValue", "OrtDevice"):
        assert getattr(ours, name) is getattr(ort, name)


@pytest.mark.parametrize("name", ["ModelCompiler", "SparseTensor", "get_ep_devices"])
def test_what_is_lacking_says_the_way_out(name):
    assert not hasattr(ort, name)
    with pytest.raises(AttributeError, match=rf"miniinfer's onnxruntime has no {name}\n  hint: {re.escape(LACKING[name])}"):
        getattr(ort, name)
    with pytest.raises(ImportError, match="hint: "):
        exec(f"from miniinfer_cli.ort import {name}")
    with pytest.raises(ImportError, match="hint: "):
        exec(f"from miniinfer_cli.ort.capi._pybind_state import {name}")


def test_what_nobody_has_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'onnxruntime' has no attribute 'nothing'"):
        ort.nothing  # noqa: B018
    with pytest.raises(ImportError):
        exec("from miniinfer_cli.ort import nothing")


def test_hints_are_there():
    for hints in (LACKING, LACKING_IN_CAPI, LACKING_MODULES, *LACKING_MEMBERS.values()):
        assert all(hints.values())


def test_the_page_lists_them():
    text = ort_page.PAGE.read_text()
    assert text.partition(ort_page.START)[2] == ort_page.tables(), "run: python -m tests.ort_page"
