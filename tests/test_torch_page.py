"""docs/torch.md lists the reasons for which a captured graph runs eagerly."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_lists_the_reasons():
    tree = ast.parse((ROOT / "miniinfer_cli" / "torch_backend" / "reasons.py").read_text())
    (reasons,) = (
        ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "REASONS"
    )
    assert len(reasons) > 5
    text = (ROOT / "docs" / "torch.md").read_text()
    assert [word for word, why in reasons.items() if f"| `{word}` | {why} |" not in text] == []
