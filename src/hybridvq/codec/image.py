"""Images to `.hvq` files and back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hybridvq import tiles
from hybridvq.codec import format, hybrid, layered
from hybridvq.codec.choose import Chooser
from hybridvq.codec.coder import TokenCoder
from hybridvq.codec.fit import check_codable
from hybridvq.codec.scales import step_byte
from hybridvq.codec.tables import FILE, Tables, load_tables
from hybridvq.codec.targets import Attempt, Target, meet, meet_by_step
from hybridvq.devices import Device
from hybridvq.errors import CodecError, ConfigError
from hybridvq.metrics import psnr_db
from hybridvq.pixels import Picture, Pixels, as_bytes, as_pixels, squared_error, to_pixels
from hybridvq.quantizers import Tokens, step_of_quality
from hybridvq.saved import model_folder
from hybridvq.settings import CodecSettings
from hybridvq.tokenizer import Tokenizer, load_tokenizer, weight_hash

COLOR, GRAY = 0, 1  # the header's `color`
QUALITY = 75.0  # of a hybrid model, where none is given
STRIP = 256  # rows that are looked at together for colors


@dataclass(frozen=True)
class Pieces:
    """A decoded image in pieces: the top, the left, and x_hat (1, 3, ., .) in [-1, 1] of each.

    As an iterator, the pixels (., ., 3) uint8 in its place, or (., .) where the image is gray.
    """

    height: int
    width: int
    gray: bool
    parts: Iterator[tuple[int, int, Tensor]]

    def __iter__(self) -> Iterator[tuple[int, int, np.ndarray]]:
        for top, left, x_hat in self.parts:
            pixels = to_pixels(x_hat.mean(1, keepdim=True))[..., 0] if self.gray else to_pixels(x_hat)
            yield top, left, pixels[0].numpy()

    def image(self) -> Image.Image:
        """All of it, of mode RGB, or L if it is gray."""
        image = Image.new("L" if self.gray else "RGB", (self.width, self.height))
        for top, left, pixels in self:
            image.paste(Image.fromarray(pixels), (left, top))
        return image


@dataclass(frozen=True, repr=False)
class Codec:
    """A tokenizer and what its tokens are coded with.

        image ──tiles.encode──► tokens ──TokenCoder──► streams ──format.write──► bytes      compress
        image ◄──tiles.decode── tokens ◄──TokenCoder── streams ◄──format.read─── bytes      decompress

    Attributes:
        tokenizer: its tokens are codes, and gains on levels or none.
        tables: the probabilities of these tokens.

    Raises:
        CodecError: the model's tokens hold floats, or the tables are of another K, L or S.
    """

    tokenizer: Tokenizer
    tables: Tables

    def __post_init__(self) -> None:
        check_codable(self.tokenizer.quantizer)
        for key in ("codebook_size", "levels", "stages"):
            own, others = getattr(self.tokenizer.quantizer, key), getattr(self.tables, key)
            if own != others:
                raise CodecError(
                    f"the tables ({FILE}) are of a model whose {key} is {others}, and this one's is {own}; run "
                    "`hybridvq fit-codec` again"
                )
        if self.is_hybrid and (self.tables.scales is None or self.tables.scales.dim != self.tokenizer.dim):
            raise CodecError(
                f"the tables ({FILE}) are not of this model's coefficients; run `hybridvq fit-codec` again"
            )

    @property
    def is_hybrid(self) -> bool:
        """Whether files hold codes and coefficients, in version 2 of the format."""
        return self.tokenizer.quantizer.counts_bits

    def __repr__(self) -> str:
        factor, model = self.tokenizer.downsampling, self.tables.model
        return f"Codec({self.tokenizer.quantizer}, downsampling={factor}, model={model[:12]})"

    @classmethod
    def load(cls, model: str | Path, device: Device = "auto") -> "Codec":
        """The codec of a run, a model folder, a bundled model or one of the hub, on the device of that name.

        Raises:
            ModelError: there is no such model.
            ConfigError: there is no such device.
            CodecError: the model has no tables, or those of another; `hybridvq fit-codec` makes them.
        """
        folder = model_folder(model)
        tokenizer = load_tokenizer(folder, device=device)
        return cls(tokenizer, load_tables(folder, weight_hash(folder)))

    def compress(self, image: Picture, settings: CodecSettings | None = None) -> bytes:
        """The file of an image of any size from 1x1.

        Args:
            image: the path of a file, a Pillow image of any mode, or (H, W, 3) uint8 or floats in [-1, 1]; files and
                Pillow images become RGB as `hybridvq.data.decode` says. One whose channels are all equal is gray, and
                comes back gray.
            settings: how; all stages and levels, chosen as the model was trained to, if not given. No `rate_weight`
                gives a larger file than 0 does: where the tokens it chooses take more bytes, the model's own stand.

        Raises:
            ShapeError: the array has another shape or type.
            DataError: the file cannot be read, the Pillow image has pixels of unknown range, or floats lie elsewhere.
            ConfigError: the model has no such setting, a target is out of reach, or the image is too long and thin
                for contextual tables.
        """
        settings = replace(settings or CodecSettings())  # checked again: fields can be set
        pixels = as_bytes(as_pixels(image))
        if self.is_hybrid:
            return self._compress_hybrid(pixels, settings)
        if settings.quality is not None:
            raise ConfigError(f"quality is {settings.quality}, which hybrid models alone have; use rate_weight")
        return self._compress(pixels, settings)

    def _compress(self, image: Pixels, settings: CodecSettings) -> bytes:
        stages = settings.stages or self.tables.stages
        if stages > self.tables.stages:
            raise ConfigError(f"stages is {stages}, and the model has {self.tables.stages}; use no more than that")
        header = self._header(image, settings)

        @cache
        def attempt(stages: int, rate_weight: float) -> Attempt:
            tokens = self._tokens(image, stages, rate_weight)
            shown = partial(self.pieces, tokens, header.height, header.width, header.color == GRAY)
            data, psnr = self._file(tokens, header), partial(psnr_db_of, image, shown)
            return Attempt(data, 8 * len(data) / (header.height * header.width), cache(psnr))

        value = settings.target_bpp or settings.target_psnr
        if value is not None:
            unit = Chooser(self.tokenizer.quantizer, self.tables, 1, 0.0).power()
            return meet(Target(value, settings.target_bpp is not None), attempt, stages, unit).data
        return min((attempt(stages, weight).data for weight in sorted({0.0, settings.rate_weight})), key=len)

    def _compress_hybrid(self, image: Pixels, settings: CodecSettings) -> bytes:
        for key in ("stages", "rate_weight"):
            if getattr(settings, key):
                raise ConfigError(f"{key} is {getattr(settings, key)}, which hybrid models do not have; use quality")
        (height, width), color = tiles.size_of(image), GRAY if is_gray(image) else COLOR
        mode = format.MODES.index(settings.mode)
        header = layered.layered_header(
            self.tables, height, width, self.tokenizer.downsampling, 0, mode=mode, color=color
        )
        check_waves(header.codes)
        latent = hybrid.encode(self.tokenizer, self.tables, image)
        codes = latent.code_stream(mode)

        @cache
        def attempt(byte: int) -> Attempt:
            data = layered.write(replace(header, step=byte), [codes, *latent.coefficient_streams(byte)])
            psnr = partial(psnr_db_of, image, lambda: self._hybrid_pieces(data))
            return Attempt(data, 8 * len(data) / (height * width), cache(psnr))

        value = settings.target_bpp or settings.target_psnr
        if value is not None:
            return meet_by_step(Target(value, settings.target_bpp is not None), attempt, 255).data
        quality = QUALITY if settings.quality is None else settings.quality
        return attempt(step_byte(step_of_quality(quality))).data

    def _hybrid_pieces(
        self,
        data: bytes,
        name: str = "this file",
        max_pixels: int = format.MAX_PIXELS,
        preview: bool = False,
        draw: hybrid.Draw | None = None,
    ) -> Pieces:
        header, codes, streams = layered.read(data, name, max_pixels)
        layered.check_model(header, self.tables, name)
        self._check_followed(header.factor, header.color, name)
        layers = hybrid.decode(header, codes, [] if preview else streams, self.tables, draw)
        parts = hybrid.pieces(self.tokenizer, layers, header.height, header.width)
        return Pieces(header.height, header.width, header.color == GRAY, parts)

    def decompress(
        self,
        data: bytes,
        name: str = "this file",
        max_pixels: int | None = None,
        *,
        preview: bool = False,
        draw: hybrid.Draw | None = None,
    ) -> Image.Image:
        """The image of a file, as a Pillow image of mode RGB, or L if it was gray.

        Its tokens are those that were compressed, exactly. Its pixels may differ by 1 between machines, where a sum of
        floats is rounded another way.

        Args:
            data: what `compress` returned.
            name: what errors call it.
            max_pixels: the largest image that is believed; 2^28 if not given.
            preview: of a hybrid model, read the codes alone.
            draw: of a hybrid model, draw coefficients that are not read, or that a file was cut off before, at random
                from what the codes let expect; their mean if not given.

        Raises:
            CodecError: this is no whole file of this model and these tables, or larger than is believed. A file of a
                hybrid model may be cut off anywhere after its codes.
            ConfigError: `max_pixels` is no whole number of at least 1, or the model has no coefficients to leave out.
        """
        most = format.MAX_PIXELS if max_pixels is None else max_pixels
        if format.version_of(data, name) == layered.VERSION:
            return self._hybrid_pieces(data, name, most, preview, draw).image()
        if preview or draw:
            raise ConfigError(f"{name} has no coefficients that could be left out or drawn; leave out preview and draw")
        header, streams = format.read(data, name, most)
        format.check_model(header, self.tables, name)
        if self.is_hybrid:
            raise CodecError(f"{name} contradicts the model that it names; it was not made by hybridvq")
        self._check_followed(header.factor, header.color, name)
        codes, levels = TokenCoder(self.tables, header.mode).decode(streams, header.grid)
        tokens = Tokens(*(None if a is None else torch.from_numpy(a)[None] for a in (codes, levels)))
        return self.pieces(tokens, header.height, header.width, header.color == GRAY).image()

    def _check_followed(self, factor: int, color: int, name: str) -> None:
        if factor != self.tokenizer.downsampling or color not in (COLOR, GRAY):
            raise CodecError(f"{name} says what this version cannot follow of its model's images; update hybridvq")

    def pieces(self, tokens: Tokens, height: int, width: int, gray: bool) -> Pieces:
        """The decoded image of tokens of codes and levels."""
        return Pieces(height, width, gray, tiles.decode(self.tokenizer, tokens, height, width))

    def _tokens(self, image: Pixels, stages: int, rate_weight: float) -> Tokens:
        if rate_weight:
            chooser = Chooser(self.tokenizer.quantizer, self.tables, stages, rate_weight)
            return tiles.encode(self.tokenizer, [image], chooser).to("cpu")
        return tiles.encode(self.tokenizer, [image]).to("cpu").stages(stages)

    def _header(self, image: Pixels, settings: CodecSettings) -> format.Header:
        (height, width), f = tiles.size_of(image), self.tokenizer.downsampling
        mode, color = format.MODES.index(settings.mode), GRAY if is_gray(image) else COLOR
        header = format.header_of(self.tables, height, width, f, mode=mode, color=color)
        check_waves(header)
        return header

    def _file(self, tokens: Tokens, header: format.Header) -> bytes:
        assert tokens.codes is not None
        gains = None if tokens.gains is None else tokens.gains[0].numpy()
        streams = TokenCoder(self.tables, header.mode).encode(tokens.codes[0].numpy(), gains)
        return format.write(header, streams)


def check_waves(header: format.Header) -> None:
    """Raise ConfigError where `decompress` would not believe the wavefronts."""
    height, width = header.height, header.width
    if header.waves > format.most_waves(max(format.MAX_PIXELS, height * width)):
        raise ConfigError(f"an image of {width}x{height} pixels is too long and thin for contextual; use mode static")


def psnr_db_of(image: Pixels, shown: Callable[[], Pieces]) -> float:
    """PSNR of what is shown of an image, a piece at a time."""
    pieces, squares = shown(), 0
    for top, left, pixels in pieces:
        original = tiles.cut(image, top, left, top + pixels.shape[0], left + pixels.shape[1])
        same = pixels[..., None] if pieces.gray else pixels
        squares += squared_error(original, same)
    return psnr_db(squares / (3 * pieces.height * pieces.width) / 127.5**2)


def compress(image: Picture, model: str | Path | Codec, settings: CodecSettings | None = None) -> bytes:
    """Compress an image, as `Codec.compress` does, with a codec or with that of a run, a model folder or a hub id."""
    return (model if isinstance(model, Codec) else Codec.load(model)).compress(image, settings)


def decompress(
    data: bytes, model: str | Path | Codec, *, preview: bool = False, draw: hybrid.Draw | None = None
) -> Image.Image:
    """Decompress a file, as `Codec.decompress` does, with a codec or with that of a run, a model folder or a hub id."""
    codec = model if isinstance(model, Codec) else Codec.load(model)
    return codec.decompress(data, preview=preview, draw=draw)


def is_gray(image: Pixels) -> bool:
    """Whether the three channels are equal everywhere; looks no further than the first strip where they are not."""
    height, width = tiles.size_of(image)
    for top in range(0, height, STRIP):
        strip = tiles.cut(image, top, 0, min(top + STRIP, height), width)
        if (strip[..., :2] != strip[..., 1:]).any():
            return False
    return True
