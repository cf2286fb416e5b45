"""Text out of files as it may be shown: what would steer a terminal, or begin a line of its own, becomes an escape."""

import re

# Control characters (C0, DEL, C1), line and paragraph separators, and what turns the direction of writing.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""``text`` in one line, with ``\x1b`` or ``\u2028`` in place of each character that acts instead of being seen."""
    return _UNSEEN.sub(lambda found: _escape(found[0]), text)


def visible_json(text: str) -> str:
    r"""The text of a JSON document, with ``\u009b`` in place of those that JSON lets stand in a string; the same document."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] < " " else f"\\u{ord(found[0]):04x}", text)


def _escape(char: str) -> str:
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(char) or (
        f"\\x{ord(char):02x}" if char < "\x80" else f"\\u{ord(char):04x}"
    )
