"""Weights as the product of few tokens reads them."""

import numpy as np

from miniinfer_cli.backends.cuda.tactics.products.product_sm90 import packed_pieces
from miniinfer_cli.backends.cuda.tactics.products.token_forms import CHUNK_NBYTES, FEATURES


def packed(weights: np.ndarray) -> np.ndarray:
    """Rows of features by 64, then by chunks of k, zeros where there are none, with their pieces of 16 bytes exchanged."""
    features, k = weights.shape
    elements = CHUNK_NBYTES // weights.itemsize
    tiles, chunks = -(-features // FEATURES), -(-k // elements)
    whole = np.zeros((tiles * FEATURES, chunks * elements), weights.dtype)
    whole[:features, :k] = weights
    by_chunk = whole.reshape(tiles, FEATURES, chunks, elements).transpose(0, 2, 1, 3)
    pieces = by_chunk.reshape(tiles, chunks, FEATURES * 8, elements // 8)
    return np.ascontiguousarray(pieces[:, :, packed_pieces()])
