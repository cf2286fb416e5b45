"""When the two products of squeeze-and-excitation are joined, and in which slices: the thresholds of the family in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExcitationHeuristic:
    """A block makes a slice of an image's outputs, and for it the whole squeezed vector, of all weights of the first product.

    The times say what that takes against four launches: two products with what follows each. They are as measured on an H200, of
    pairs that stand one behind the other (docs/gpu-results.md).
    """

    outputs: int = 128
    """Outputs of a block ..."""
    most_outputs: int = 512
    """... which are doubled up to so many while there are more blocks than multiprocessors."""
    other_outputs: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Those that are offered besides the favourite."""
    apart_us: float = 5.2
    """Microseconds of the four launches for one image, those of our own products ..."""
    library_us: float = 7.0
    """... and for several, of which a library computes the products."""
    launch_us: float = 1.7
    """The same of the one launch, whatever the sizes ..."""
    squeezed_us: float = 0.025
    """... for each squeezed value ..."""
    nbytes_per_us: float = 150e3
    """... and for the weights of the first product, at this rate in each block ..."""
    nbytes_per_us_of_all: float = 2.5e6
    """... and at this rate at most in all of them together."""
    whole_arch: int = 90
    """For which architecture whole images are squeezed and excited in one launch, in ..."""
    parts: int = 8
    """... so many parts of their pixels, where both weights are no more than ..."""
    own_weights_nbytes: int = 24 << 10
    """... so many bytes, which each block has; else of their channels."""
    other_cuts: tuple[tuple[int, int], ...] = ((8, 1), (1, 8), (4, 1), (1, 4), (2, 4))
    """Parts of pixels and of channels that are offered besides the favourite."""
    whole_images: int = 16
    """Images up to which that may be the favourite: their blocks lie on the device at one time. EfficientNet-B0 gains 2.7 us each
    at one image, and loses 0.5 at 64."""
    whole_us: float = 5.0
    """What that one launch is predicted to take besides its bytes, ..."""
    pass_us: float = 2.5
    """... and means and the last product, a pass each, besides ..."""
    pass_nbytes_per_us: float = 4.0e6
    """... theirs."""


EXCITATIONS = ExcitationHeuristic()
