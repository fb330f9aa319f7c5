"""Gated PixelCNN."""

from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError
from hybridvq.priors.network import NetworkPrior
from hybridvq.quantizers import Tokens, TokenSpace
from hybridvq.ranges import check_count

FIRST_KERNEL, KERNEL = 7, 3
GATE_GAIN = 3.0  # the deviation of tanh(a) sigmoid(b) is a third for unit a, b: without it the upper layers start dead


class PixelCNNPrior(NetworkPrior):
    r"""Two stacks of gated convolutions over the grid: one reads the rows above, the other the row so far.

        vertical    v' = gate(W_v * v + V_v c)                      rows above, every column
        horizontal  h' = gate(W_h * h + W_vh W_v * v + V_h c)       the positions to the left, and the rows above
                    h  + W_r h'                                     residual
        gate(a, b) = tanh(a) sigmoid(b),  c: the class

    No weight is masked: kernels end where the past ends, and padding shifts them there (see `GatedLayer`). The first
    layer (7x7) leaves out the position itself, the others (3x3) include it; together the stacks have no blind spot.

    Sampling runs the whole network at every position, as published.

    Source: van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", arXiv:1606.05328.

    Args:
        space, shape, classes, gain, components: as in `Prior`; it does every shape, and one code per position.
        width: channels.
        layers: gated layers, the first included.
        label_dropout: as in `NetworkPrior`.

    Raises:
        ConfigError: an argument has no such value.
    """

    def __init__(
        self,
        space: TokenSpace,
        shape: tuple[int, int],
        classes: int | None = None,
        gain: str | None = None,
        components: int = 8,
        width: int = 64,
        layers: int = 15,
        label_dropout: float = 0.1,
    ) -> None:
        if space.stages != 1:
            raise ConfigError(f"pixelcnn models one code per position, and these tokens have {space.stages}")
        check_count("layers", layers)
        super().__init__(space, shape, classes, gain, components, width, label_dropout)
        self.layers = layers
        self.stack = nn.ModuleList(
            GatedLayer(width, KERNEL if i else FIRST_KERNEL, first=i == 0, labelled=classes is not None)
            for i in range(layers)
        )
        self.output = nn.Conv2d(width, width, 1)
        nn.init.kaiming_normal_(self.output.weight, nonlinearity="relu")

    def context(self, tokens: Tokens, label: Tensor | None) -> Tensor:
        assert tokens.codes is not None
        gains = None if tokens.gains is None else tokens.gains[:, 0]
        x = self.embed(tokens.codes[:, 0], gains, stage=0).movedim(-1, 1)  # (B, width, h, w)
        c = self.embed_label(label, len(x))
        v = h = x
        for layer in self.stack:
            v, h = layer(v, h, c)
        return F.relu(self.output(F.relu(h))).movedim(1, -1)[:, None]


class GatedLayer(nn.Module):
    """One layer of both stacks; the first sees only what is before a position, the others the position too.

    A kernel of k // 2 rows over a picture padded by k // 2 rows above ends in the row before each position, one of
    k // 2 + 1 rows in its own; columns alike. What a shorter kernel yields beyond the picture is cut off.
    """

    def __init__(self, width: int, kernel: int, first: bool, labelled: bool) -> None:
        super().__init__()
        self.first, self.margin = first, kernel // 2
        reach = self.margin + (not first)
        self.vertical = nn.Conv2d(width, 2 * width, (reach, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, reach))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.residual = nn.Conv2d(width, width, 1)
        self.label = nn.Linear(width, 4 * width, bias=False) if labelled else None
        for conv in (self.vertical, self.horizontal):
            nn.init.normal_(conv.weight, std=GATE_GAIN / conv.weight[0].numel() ** 0.5)

    def forward(self, v: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """v, h (B, width, rows, columns) and class vectors c (B, width) to the next v and h."""
        rows, columns = v.shape[2:]
        above = self.vertical(F.pad(v, (self.margin, self.margin, self.margin, 0)))[:, :, :rows]
        left = self.horizontal(F.pad(h, (self.margin, 0)))[..., :columns] + self.across(above)
        if self.label is not None:
            for_above, for_left = self.label(c)[..., None, None].chunk(2, 1)
            above, left = above + for_above, left + for_left
        out = self.residual(gate(left))
        return gate(above), out if self.first else h + out


def gate(x: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) of the two halves a, b of the channels."""
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()
