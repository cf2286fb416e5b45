"""What libraries refused: remembered, so that a site chooses among what is left."""

import threading


class Refusals:
    """Tactics that a library refused, by signature, key and claim. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: set[tuple[str, str, int | None]] = set()

    def add(self, signature: str, key: str, claims: int | None = None) -> None:
        """The library refused the tactic of this key for what the signature says."""
        with self._lock:
            self._refused.add((signature, key, claims))

    def has(self, signature: str, key: str, claims: int | None = None) -> bool:
        """True when it did before."""
        with self._lock:
            return (signature, key, claims) in self._refused
