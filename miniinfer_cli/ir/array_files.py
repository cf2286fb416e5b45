"""Files of arrays, as numpy writes them."""

import tokenize
import zipfile
import zlib

DAMAGED = (ValueError, EOFError, OverflowError, RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise, as the case may be, for a file that is damaged, or is no array."""
