"""What the priors that attend share: places, blocks, and the shapes they can do."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridvq.errors import ConfigError, ShapeError
from hybridvq.priors.network import NetworkPrior
from hybridvq.quantizers import Tokens, TokenSpace
from hybridvq.ranges import check_count, check_share

POSITION = 0.3  # deviation of what is added for row, column and stage: about that of a token's embedding


class AttentionPrior(NetworkPrior):
    r"""Blocks of attention over the sequence of codes: t = 0 ... T-1 over positions in raster order, stages innermost.

        x_t         what is read at t  + row + column + stage of t  + label
        block       x + attention(norm x), then x + mlp(norm x)       the mlp is 4 times as wide, with GELU
        h_t         norm x_t, which predicts k_t, and with it g_t

    Sources: Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019 (the norm before each part, GELU).

    Args:
        space, shape, classes, gain, components: as in `Prior`; smaller grids will do, larger ones will not.
        width, layers, heads: of the network; width is a multiple of heads.
        dropout: after attention and mlp, in training.
        label_dropout: as in `NetworkPrior`.

    Raises:
        ConfigError: an argument has no such value.
    """

    causal: bool  # whether t sees no later step

    def __init__(
        self,
        space: TokenSpace,
        shape: tuple[int, int],
        classes: int | None = None,
        gain: str | None = None,
        components: int = 8,
        width: int = 192,
        layers: int = 6,
        heads: int = 6,
        dropout: float = 0.0,
        label_dropout: float = 0.1,
    ) -> None:
        super().__init__(space, shape, classes, gain, components, width, label_dropout)
        check_count("layers", layers)
        check_count("heads", heads)
        check_share("dropout", dropout)
        if width % heads:
            raise ConfigError(f"width is {width} and heads is {heads}; width must be a multiple of heads")
        self.layers, self.heads, self.dropout = layers, heads, dropout
        self.start = nn.Parameter(torch.zeros(width))  # what is read in place of a code that is not known
        self.row = nn.Parameter(torch.randn(self.shape[0], width) * POSITION)
        self.column = nn.Parameter(torch.randn(self.shape[1], width) * POSITION)
        self.stage = nn.Parameter(torch.randn(self.stages, width) * POSITION)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, layers, self.causal) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def read(self, tokens: Tokens) -> Tensor:
        """What stands for each code and its gain, (B, T, width)."""
        codes, gains = tokens.codes, tokens.gains
        assert codes is not None
        inputs = [self.embed(codes[:, s], None if gains is None else gains[:, s], s) for s in range(self.stages)]
        return torch.stack(inputs, 3).flatten(1, 3)

    def attend(self, x: Tensor, label: Tensor | None, h: int, w: int) -> Tensor:
        """The contexts (B, S, h, w, width) of what is read (B, T, width)."""
        x = x + self.places(h, w)
        c = self.embed_label(label, len(x))
        x = x if c is None else x + c[:, None]
        for block in self.blocks:
            x = block(x)
        return self.norm(x).view(len(x), h, w, self.stages, -1).movedim(3, 1)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        super().check_shape(shape)
        if shape[0] > self.shape[0] or shape[1] > self.shape[1]:
            (h, w), (rows, columns) = shape, self.shape
            raise ShapeError(f"the grid is {h}x{w}, and this prior was built for at most {rows}x{columns}")

    def places(self, h: int, w: int) -> Tensor:
        """What is added for row, column and stage of each step, (T, width)."""
        return (self.row[:h, None, None] + self.column[:w, None] + self.stage).flatten(0, 2)


class Past:
    """Keys and values (B, heads, T, d) of the steps so far, in memory taken once."""

    def __init__(self, shape: tuple[int, int, int, int], like: Tensor) -> None:
        self.keys, self.values = like.new_empty(shape), like.new_empty(shape)
        self.length = 0

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add one step (B, heads, 1, d); returns all so far."""
        self.keys[:, :, self.length], self.values[:, :, self.length] = k[:, :, 0], v[:, :, 0]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class Block(nn.Module):
    """Attention and a mlp, each of a normalized input and added to it."""

    def __init__(self, width: int, heads: int, dropout: float, layers: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for last in (self.attention_output, self.contract):  # a sum of 2 layers of them keeps its scale
            nn.init.normal_(last.weight, std=(2 * layers * last.in_features) ** -0.5)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, width) to the same; with `past`, one step (B, 1, width) that also sees it and joins it."""
        x = x + self._drop(self._attend(self.attention_norm(x), past))
        return x + self._drop(self.contract(F.gelu(self.expand(self.mlp_norm(x)))))

    def _attend(self, x: Tensor, past: Past | None) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.queries_keys_values(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = past.extend(k, v)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal and past is None)
        return self.attention_output(attended.transpose(1, 2).reshape(n, length, width))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
