"""``miniinfer completion``, and what its script asks for in turn."""

import pytest


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o nosort"), ("zsh", "#compdef miniinfer"), ("fish", "complete ")]
)
def test_each_shell_has_a_script(miniinfer, shell, word):
    outcome = miniinfer("completion", shell)
    assert outcome.code == 0
    assert word in outcome.out
    assert f"_MINIINFER_COMPLETE={shell}_complete" in outcome.out


def test_another_shell_is_refused(miniinfer):
    outcome = miniinfer("completion", "tcsh")
    assert outcome.code == 2
    assert "tcsh" in outcome.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [("miniinfer pro", {"profile"}), ("miniinfer build --opt-le", {"--opt-level"}), ("miniinfer completion f", {"fish"})],
)
def test_words_are_completed(miniinfer, monkeypatch, words, expected):
    monkeypatch.setenv("_MINIINFER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    found = {line.partition(",")[2] for line in miniinfer().out.splitlines()}
    assert found == expected
