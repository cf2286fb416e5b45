"""The equations of Einsum taken apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from miniinfer_cli.errors import ModelError


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation taken apart: the labels of each operand's axes and of the output's; ``...`` is one label."""

    terms: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]

    def spread(self, ranks: Sequence[int]) -> tuple[list[str], ...]:
        """The labels of operands of these ranks and of the output, '...' as one label for each axis it stands for."""
        counts = [rank - len(term) + 1 for rank, term in zip(ranks, self.terms, strict=True) if "..." in term]
        extra = [f"...{i}" for i in range(max(counts, default=0))]
        return tuple(
            [label for item in term for label in (extra if item == "..." else [item])] for term in (*self.terms, self.output)
        )


def parse_equation(equation: str) -> Equation:
    """Takes an equation apart. Raises ModelError where it is malformed."""
    text = "".join(equation.split())
    left, arrow, right = text.partition("->")
    terms = tuple(_labels(term, equation) for term in left.split(","))
    if arrow:
        output = _labels(right, equation)
        missing = [label for label in output if label != "..." and not any(label in term for term in terms)]
        if missing or len(set(output)) != len(output):
            raise ModelError(f"Einsum equation {equation!r} has an output label that no operand has, or has one twice")
    else:
        counts = Counter(label for term in terms for label in term)
        once = sorted(label for label, count in counts.items() if count == 1 and label != "...")
        output = ("...", *once) if "..." in counts else tuple(once)
    return Equation(terms, output)


def _labels(term: str, equation: str) -> tuple[str, ...]:
    labels: list[str] = []
    rest = term
    while rest:
        label = "..." if rest.startswith("...") else rest[0]
        if (label != "..." and not (label.isascii() and label.isalpha())) or (label == "..." and "..." in labels):
            raise ModelError(f"Einsum equation {equation!r} is malformed at {rest!r}")
        labels.append(label)
        rest = rest[len(label) :]
    return tuple(labels)
