"""The sound plan that fuzzing starts from, and what opens the broken ones."""

from tests.fuzz.opening import opener, sound

__all__ = ["opener", "sound"]
