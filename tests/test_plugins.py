"""Plugins that cannot be imported are told apart: not found, or with the line that failed."""

import sys

import pytest

from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.plugins import fault_of_plugin, load_plugins


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_modules_are_imported_once_and_in_order(folder):
    (folder / "first_plugin.py").write_text("seen = []\n")
    (folder / "second_plugin.py").write_text("import first_plugin\nfirst_plugin.seen.append(2)\n")
    load_plugins(["first_plugin", "second_plugin", "second_plugin"])
    assert sys.modules["first_plugin"].seen == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"^plugins: odd_plugin: ModuleNotFoundError: No module named 'odd_plugin'\n  hint: is its folder on PYTHONPATH\?$",
        ),
        ("import nowhere_at_all", r"^plugins: odd_plugin: ModuleNotFoundError: No module named 'nowhere_at_all'\n"),
        ("x = 1\ny = x / 0", r"^plugins: odd_plugin: .*odd_plugin\.py:2: ZeroDivisionError: division by zero\n"),
        ("x = (", r"^plugins: odd_plugin: .*SyntaxError: "),
    ],
)
def test_what_cannot_be_imported(folder, text, message):
    if text is not None:
        (folder / "odd_plugin.py").write_text(text + "\n")
    with pytest.raises(UsageError, match=message):
        load_plugins(["odd_plugin"])


def test_errors_of_ours_pass_through(folder):
    (folder / "odd_plugin.py").write_text("from miniinfer_cli.errors import ModelError\nraise ModelError('as it is')\n")
    with pytest.raises(ModelError, match=r"^as it is\n"):
        load_plugins(["odd_plugin"])


def test_an_error_that_was_raised_from_itself_is_no_fault_of_a_plugin():
    error = ValueError("round and round")
    error.__cause__ = error
    assert fault_of_plugin(error) is None
