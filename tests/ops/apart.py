"""Threads for operations that share their work."""

from concurrent.futures import ThreadPoolExecutor


class Apart:
    """``for_each`` of so many threads, which are there at once; ``parts`` notes how many there were, if several, each time."""

    def __init__(self, count):
        self.count = count
        self.parts = []

    def __call__(self, parts, body):
        self.parts.append(parts)
        with ThreadPoolExecutor(self.count) as pool:
            list(pool.map(body, range(parts)))

    def in_turn(self, *stages):
        for parts, body in stages:
            if parts == 1:
                body(0)
            else:
                self(parts, body)


class Backwards(Apart):
    """The same parts in the opposite order, on the caller's thread."""

    def __call__(self, parts, body):
        for i in reversed(range(parts)):
            body(i)
