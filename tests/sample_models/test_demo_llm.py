"""The demo of a language model: its tokens are those of whole prompts, and wrong ones fail it."""

from pathlib import Path

import onnx
import pytest

from sample_models import demo_llm
from sample_models.catalogue import generate
from sample_models.request import Request


def test_the_tokens_are_those_of_whole_prompts(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert demo_llm.demo(tmp_path) == 0
    out = capfd.readouterr().out
    assert "--kv-cache 128" in out
    assert "56 of 128 rows of the caches hold something" in out
    assert out.count("continuation, drawn: ") >= 2
    assert "Tokens: those of whole prompts" in out


def test_wrong_tokens_fail_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo_llm, "greedy", lambda logits: logits.argmin(-1))
    assert demo_llm.demo(tmp_path) == 1
    assert "Tokens: others than those of whole prompts" in capfd.readouterr().out


def test_one_wrong_token_is_seen(tmp_path: Path):
    model = tmp_path / "m.onnx"
    onnx.save(generate("tinyllama", Request(small=True)), model)
    plan = demo_llm.miniinfer_cli.build(model, kv_cache=64)
    with demo_llm.miniinfer_cli.load(plan, "cpu") as engine, engine.create_context() as context:
        prompt = demo_llm.np.array([demo_llm.PROMPT])
        tokens = [int(t[0]) for t in demo_llm.generate_tokens(context, prompt, 8, demo_llm.greedy)]
    assert demo_llm.is_right(model, tokens)
    assert not demo_llm.is_right(model, [*tokens[:5], (tokens[5] + 1) % 61, *tokens[6:]])
