"""ConvTranspose, and ConvTransposeNHWC of ours: as convolutions are done; the record says that they go the other way."""

from miniinfer_cli.backends.cuda.contract.site import lowers
from miniinfer_cli.backends.cuda.tactics.convolution.convolution import lower_convolution
from miniinfer_cli.ops import OURS

lowers("ConvTranspose")(lower_convolution)
lowers("ConvTransposeNHWC", domain=OURS)(lower_convolution)
