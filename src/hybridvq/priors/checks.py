"""What is refused before a prior runs."""

from torch import Tensor, int64

from hybridvq.errors import ConfigError, ShapeError
from hybridvq.priors.gains import Cells
from hybridvq.quantizers import Tokens, TokenSpace
from hybridvq.quantizers.space import check_indices


def check_tokens(tokens: Tokens, space: TokenSpace) -> None:
    """Raise unless these are tokens of the space, and there are some.

    Raises:
        ConfigError, ShapeError: as `TokenSpace.check`, or some stages are left out.
    """
    space.check(tokens)
    assert tokens.codes is not None
    if tokens.codes.shape[1] != space.stages or not tokens.codes.numel():
        shape = f"(batch, {space.stages}, height, width)"
        raise ShapeError(f"the codes have shape {tuple(tokens.codes.shape)}; this prior takes {shape}, none of them 0")


def check_label(label: Tensor | None, n: int, classes: int | None, unlabeled: bool) -> None:
    """Raise unless `label` is a class for each of n images, or None where a prior has learned `unlabeled` images.

    Raises:
        ConfigError: the prior has no classes, or not that many, or it needs a label.
        ShapeError: it is not (n,) int64.
    """
    if label is None:
        if not unlabeled:
            raise ConfigError(
                "this prior was trained without label dropout, so it knows no images without a label; give label, or "
                "train it with a label_dropout above 0"
            )
        return
    if classes is None:
        raise ConfigError("this prior was built without classes, so it takes no labels")
    if label.shape != (n,) or label.dtype != int64:
        raise ShapeError(f"label is {label.dtype} of shape {tuple(label.shape)}; it must be int64 of shape ({n},)")
    check_indices("labels", label, classes)


def check_cells(cells: Cells | None, codes: Tensor, kind: str) -> None:
    """Raise unless `cells` is None, or the edges of a cell for each float gain.

    Raises:
        ConfigError: gains are not floats.
        ShapeError: they have not the shape of the codes.
    """
    if cells is None:
        return
    if kind != "float":
        raise ConfigError("cells are given, but the gains of this prior are no floats; leave cells out")
    if any(edges.shape != codes.shape for edges in cells):
        raise ShapeError(f"cells must be two tensors of shape {tuple(codes.shape)}, the edges of each gain's cell")


def check_given(given: Tokens | None, keep: Tensor | None, n: int, shape: tuple[int, ...], space: TokenSpace) -> None:
    """Raise unless both are None, or tokens of the space and which of their positions are kept.

    Raises:
        ConfigError: one comes without the other, or the tokens are of another kind.
        ShapeError: their shapes do not fit n grids of `shape`.
    """
    if given is None and keep is None:
        return
    if given is None or keep is None:
        raise ConfigError("given and keep go together: the tokens, and the positions (h, w) taken from them")
    check_tokens(given, space)
    assert given.codes is not None
    if given.codes.shape[0] not in (1, n) or given.codes.shape[2:] != shape or keep.shape != shape:
        raise ShapeError(
            f"given holds codes of shape {tuple(given.codes.shape)} and keep has shape {tuple(keep.shape)}; "
            f"they must be (1 or {n}, {space.stages}, {shape[0]}, {shape[1]}) and {shape}"
        )
