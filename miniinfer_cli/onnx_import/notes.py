"""What is formally wrong with a model but means one thing: it is taken as meant, and told in the report of the build."""

from miniinfer_cli.onnx_import.faults import named

_SHOWN = 3
"""Places that a note names; the rest are counted."""


class Notes:
    """The notes on one model so far."""

    def __init__(self) -> None:
        self._places: dict[str, dict[str, None]] = {}

    def add(self, text: str, place: str = "") -> None:
        """Notes ``text``, once, however often it comes; ``place`` names the node that it is about, if any."""
        places = self._places.setdefault(text, {})
        if place:
            places[place] = None

    def lines(self) -> tuple[str, ...]:
        """One line each, in the order in which they came first."""
        return tuple(f"{text} ({named(list(places), _SHOWN)})" if places else text for text, places in self._places.items())
