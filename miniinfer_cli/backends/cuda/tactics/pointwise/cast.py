"""BitCast; Cast is in pointwise.py, CastLike is expanded to it, Identity is a view."""

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Lowered
from miniinfer_cli.backends.cuda.contract.types import HOST_ONLY
from miniinfer_cli.backends.cuda.launching.same_bytes import copied
from miniinfer_cli.backends.cuda.tactics.pointwise.pointwise import single_launch


@lowers("BitCast")
def lower_bit_cast(site: Site) -> Lowered | None:
    """The same bytes; types under 8 bits are extended to a byte each in their own way."""
    if site.out_dtype().bits >= 8:
        return copied(site)
    return None if site.dtype() in HOST_ONLY else single_launch(site, [site.shape(0)])
