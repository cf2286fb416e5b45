"""The release, in one place: the package, the plans it writes and the distribution take it from here."""

VERSION = "0.1.0"
