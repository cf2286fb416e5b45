"""FusedConv: a convolution and the elementwise operations behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.backends.cuda.contract.site import Site, lowers, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.regions import claiming, is_closed
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_tactics import convolution_ways
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import (
    PRODUCT_ACTIVATIONS,
    Convolution,
    ConvolutionOperands,
    Finish,
    activation_of,
    convolution_of,
)
from miniinfer_cli.backends.cuda.tactics.convolution.depthwise import depthwise_tactics
from miniinfer_cli.backends.cuda.tactics.convolution.patches import prefers_patches
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import favours_pixels, pixel_region_tactics, reads_as_it_lies
from miniinfer_cli.backends.cuda.tactics.convolution.stems import prefers_stem, stem_region_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_endings import QUICK_ACTIVATIONS, Following
from miniinfer_cli.ir import Array, Graph, Node, TensorType, Value
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.inference import Types, infer_graph


@lowers("FusedConv", domain=OURS)
def lower_fused_conv(site: Site) -> tuple[Tactic, ...] | None:
    """As much of the body as a library call or our kernel does at once; the rest follows as a pointwise region.

    The heuristic takes the longest part that is done a fast way; our kernels do every part, so they take the longest.
    """
    body = site.node.body
    assert body is not None
    region = _Region.of(site, body)
    if region is None:
        return None
    claims = [c for c in region.claims() if is_closed(body, c.nodes)]
    if not claims:
        return None  # nothing reads the convolution's result, or all that leaves the region is something else
    io = region.io(site)
    if region.before is not None:
        return region.activated(site, claims)
    fast: list[Tactic] = []
    others: list[Tactic] = []
    pixels = [] if _is_product(region, claims[-1]) else region.by_pixels(site, claims[0].finish)
    favoured = bool(pixels) and favours_pixels(region.conv, site.target, activated=True)
    for claim in reversed(claims):
        ways = convolution_ways(region.conv, io, claim.finish, site.target)
        is_longest = claim is claims[-1]
        fast += region.claiming(site, claim, ways.fast)
        kept = (*ways.products, *ways.own, *ways.beside) if is_longest else (*ways.products, *ways.beside)
        others += region.claiming(site, claim, kept)
        pixels += region.claiming(site, claim, ways.pixels)
        favoured |= ways.favoured  # of the convolution, whatever follows it
    return (*pixels, *fast, *others) if favoured else (*fast, *others, *pixels)


@reads_strided("FusedConv", domain=OURS)
def reads_image_of_region(site: Site, number: int) -> bool:
    """The image of the convolution in front, where its patches are copied in any case, or what a stem reads, or channels of one
    that lie side by side; and nothing else of the body reads it.
    """
    body = site.node.body
    assert body is not None
    region, image = _Region.of(site, body), body.inputs[number]
    if region is None or region.anchor.inputs[0] is not image or image in region.anchor.inputs[1:]:
        return False
    if image.users != (region.anchor,):
        return False
    io = region.io(site)
    preferred = prefers_patches(region.conv, io) or prefers_stem(region.conv, io, site.target)
    return preferred or reads_as_it_lies(region.conv, io, site.target, activated=True)


@dataclass(frozen=True, slots=True)
class _Claim:
    """The first nodes of a body, and what those behind the convolution do."""

    nodes: tuple[Node, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class _Region:
    """A body whose first node is a convolution. ``tables`` collects constants of the body that kernels read.

    ``before``: an activation in front of a depthwise convolution, which reads nothing else but weights and a bias.
    """

    body: Graph
    anchor: Node
    conv: Convolution
    types: Types
    tables: list[Array]
    before: Node | None = None

    @staticmethod
    def of(site: Site, body: Graph) -> "_Region | None":
        """None when the body does not begin with a convolution that kernels take."""
        types = infer_graph(body, site.types)
        first, *others = body.nodes
        before = first if others and _stands_before(first, others[0]) else None
        anchor = first if before is None else others[0]
        x, w, y = (types.get(v, v.type) for v in (*anchor.inputs[:2], *anchor.outputs[:1]) if v is not None)
        assert isinstance(x, TensorType)
        assert isinstance(w, TensorType)
        assert isinstance(y, TensorType)
        conv = convolution_of(anchor, x, w, y)
        if conv is None or (before is not None and (not conv.is_depthwise or 0 in conv.y_shape)):
            return None
        return _Region(body, anchor, conv, types, [], before)

    def activated(self, site: Site, claims: Sequence[_Claim]) -> tuple[Tactic, ...]:
        """The ways of a depthwise convolution with an activation in front, the longest claims first."""
        assert self.before is not None
        before, io = activation_of(self.before), self.io(site)
        listed = ((c, depthwise_tactics(self.conv, io, c.finish, site.target, before=before)) for c in reversed(claims))
        return tuple(tactic for claim, tactics in listed for tactic in self.claiming(site, claim, tactics))

    def claiming(self, site: Site, claim: _Claim, tactics: Sequence[Tactic]) -> list[Tactic]:
        """The tactics, which do the claim, as those of the region: they find the tables of the body's constants."""

        def with_tables(tactic: Tactic) -> Tactic:
            def emit(work: Work) -> None:
                for table in self.tables:
                    work.table(table)
                tactic.emit(work)

            return replace(tactic, emit=emit)

        return claiming(site, claim.nodes, self.types, map(with_tables, tactics) if self.tables else tactics)

    def by_pixels(self, site: Site, finish: Finish) -> list[Tactic]:
        """The whole body by a product of its pixels; ``finish`` is the convolution's own."""
        first, *rest = self.body.nodes
        if not rest or list(self.body.outputs) != [rest[-1].output]:
            return []
        places = {v: Operand.input(i) for i, v in enumerate(self.body.inputs)}
        quick = len(rest) == 1 and activation_of(rest[0]) in QUICK_ACTIVATIONS
        following = Following(first.output, rest, self.types, places, quick)
        given = self.conv, self.io(site), finish, following, site.target
        tactics = (*pixel_region_tactics(*given), *stem_region_tactics(*given))
        return self.claiming(site, _Claim(self.body.nodes, finish), tactics)

    def io(self, site: Site) -> ConvolutionOperands:
        """The operands of the convolution, among those of the region."""
        x, w = self.anchor.inputs[:2]
        if self.before is not None:
            x = self.before.inputs[0]
        assert x is not None
        assert w is not None
        weights = w.constant or site.handles[self.body.inputs.index(w)]
        strides = dict(zip(self.body.inputs, site.strided, strict=False)).get(x)
        return ConvolutionOperands(self.operand(x), self.operand(w), Operand.output(0), weights, strides)

    def operand(self, value: Value) -> Operand:
        """An input of the region, or a constant of its body as a table."""
        if value.constant is None:
            return Operand.input(self.body.inputs.index(value))
        self.tables.append(value.constant.array())
        return Operand.table(len(self.tables) - 1)

    def claims(self) -> Iterator[_Claim]:
        """The convolution alone, and with one node more each time: bias and residual in any order, then an activation."""
        bias = self.anchor.inputs[2] if len(self.anchor.inputs) > 2 else None
        first = (self.anchor,) if self.before is None else (self.before, self.anchor)
        claim = _Claim(first, Finish(bias=None if bias is None else self.operand(bias)))
        yield claim
        while not claim.finish.activation:
            value = claim.nodes[-1].output
            if self.body.is_output(value) or len(value.users) != 1:
                return
            (node,) = value.users
            finish = self._with(node, value, claim.finish)
            if finish is None:
                return
            claim = _Claim((*claim.nodes, node), finish)
            yield claim

    def _with(self, node: Node, value: Value, finish: Finish) -> Finish | None:
        """What ``node``, which reads ``value``, adds; None when no kernel does it on the way out."""
        if node.op != "Add" or node.domain:
            activation = activation_of(node)
            return replace(finish, activation=activation) if activation else None
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        if other is None or other is value:
            return None
        kind = self.types.get(other, other.type)
        if not isinstance(kind, TensorType) or kind.dtype is not self.conv.dtype or self.types[node.output] != self.types[value]:
            return None
        shape = static_shape(kind)
        if finish.bias is None and self._is_row(shape):
            return replace(finish, bias=self.operand(other))
        if finish.residual is None and shape == self.conv.y_shape and other in self.body.inputs:
            return replace(finish, residual=self.operand(other))
        return None

    def _is_row(self, shape: tuple[int, ...]) -> bool:
        """True for one number for each output channel, lined up with them."""
        rank = len(self.conv.y_shape)
        aligned = (1,) * (rank - len(shape)) + shape
        channel = rank - 1 if self.conv.channels_last else 1
        return aligned == tuple(n if i == channel else 1 for i, n in enumerate(self.conv.y_shape))


def _is_product(region: _Region, claim: _Claim) -> bool:
    """Whether the claim is the whole body, with what products have behind them."""
    return len(claim.nodes) == len(region.body) and claim.finish.activation in PRODUCT_ACTIVATIONS


def _stands_before(node: Node, anchor: Node) -> bool:
    """Whether a node is an activation of what the body is given, and the anchor alone reads it, as its image."""
    given = node.inputs[0] if node.inputs else None
    reads = anchor.op == "ConvNHWC" and anchor.inputs[0] is node.outputs[0] and node.outputs[0].users == (anchor,)
    return reads and given is not None and given.producer is None and bool(activation_of(node))
