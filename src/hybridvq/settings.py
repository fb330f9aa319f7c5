"""Everything a user can set, as plain dataclasses; free of torch, so that the command line starts at once."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from hybridvq.errors import ConfigError
from hybridvq.ranges import COUNT, SEED, SHARE, SIZE, Range, check_numbers, number

T = TypeVar("T")

NORM_STEPS = 300  # frozen after 60 steps of 600, with 32 photographs per step, a VQ-VAE ends a fifth worse


@dataclass
class ModelSettings:
    """The tokenizer.

    Args:
        dim: width of the published network and length of a code vector.
        downsampling: how many pixels per side one position covers; a power of two.
        quantizer: vector, projected, frequency, gain-shape, fsq, hybrid, identity or gaussian.
        options: the quantizer's own arguments. With codes: codebook_size, beta, restart_every, decay, code_dim,
            normalize, channel_last, sync; vector, projected and frequency also learn (gradient or ema) and init (kmeans
            or uniform); vector also distance (euclidean or cosine), heads, share_codes, rate_weight; frequency
            also frequent, rare, warmup_steps, table_decay; gain-shape also levels, stages, quantize_from, gradient,
            rate_weight. fsq: grid, rate_weight, decay.
            hybrid: groups, codebook_size, code_dim, width, beta, aside_steps, step_range, step, distortion, balance,
            rate_weight, init, restart_every, decay. gaussian: kl_weight.
        network: published, or photo, which has downsampling 8 alone.
        network_options: the network's own arguments: of photo, widths and decoder_width.
    """

    dim: int = number(64, Range(1, 2**16))
    downsampling: int = number(4, Range(1, 2**10))
    quantizer: str = "vector"
    options: dict[str, Any] = field(default_factory=dict)
    network: str = "published"
    network_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass
class Schedule:
    """Steps of Adam, and what happens between them.

    Args:
        steps: optimizer steps.
        batch_size: images per step, over all devices.
        learning_rate: Adam's, after the warm-up.
        warmup: share of the steps over which the learning rate rises from 0.
        decay: share of the steps, at the end, over which it falls to 0.
        precision: 32-true, bf16-mixed, or auto, which takes bf16-mixed where the device multiplies bfloat16 natively.
        eval_every: steps between two measurements of the test loss.
        checkpoint_every: steps between two checkpoints.
        logger: where the losses and measurements go: tensorboard, csv, wandb or mlflow, or a list of them.
        average: decay of an exponential average of the weights over the steps, such as 0.999, which is what is measured
            and kept; 0 keeps the weights themselves.
    """

    steps: int = number(3000, COUNT)
    batch_size: int = number(128, Range(1, 10**6))
    learning_rate: float = number(4e-4, Range(0, 10, whole=False, positive=True))
    warmup: float = number(0.03, SHARE)
    decay: float = number(0.2, SHARE)
    precision: str = "auto"
    eval_every: int = number(200, COUNT)
    checkpoint_every: int = number(200, COUNT)
    logger: list[str] | str = "tensorboard"
    average: float = number(0.0, Range(0, 1 - 1e-9, whole=False))

    def __post_init__(self) -> None:
        check_numbers(self, "training.")
        if self.warmup + self.decay > 1:
            raise ConfigError(
                f"training.warmup {self.warmup} and training.decay {self.decay} must be shares that add to at most 1"
            )
        if self.precision not in ("auto", "32-true", "bf16-mixed"):
            raise ConfigError(f"training.precision is {self.precision!r}; use auto, 32-true or bf16-mixed")

    def identity(self) -> dict[str, Any]:
        """What the weights follow from: all settings but the logger."""
        return {key: value for key, value in asdict(self).items() if key != "logger"}

    def learning_rate_factor(self, step: int) -> float:
        """What the learning rate is multiplied by at `step`, counted from 0: linear up, flat, linear down."""
        up = (step + 1) / (self.warmup * self.steps) if self.warmup else 1.0
        down = (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        return min(1.0, up, max(0.0, down))


@dataclass
class TrainingSettings(Schedule):
    """Settings of a tokenizer's training: Adam on the error of reconstruction and the quantizer's losses.

    Args:
        freeze_norm: share of the steps, at the end, in which batch normalization goes over from the statistics of each
            batch to its running averages, as in evaluation: what the decoder then learns is what it will be given, and
            no batch's statistics spoil a step. It goes over in 300 steps, or a quarter of those left: at once would
            throw the loss up.
        loss: mse, l1, charbonnier or ms-ssim; or psnr: the mean over images of log(MSE + 0.001), which counts a tenth
            more error alike in a smooth image and in a busy one, as a mean of decibels does; or rate-distortion, the
            bits that a hybrid quantizer counts and the squared errors, each image at the exchange rate of its step. Or
            several with their weights, such as {mse: 1.0, ms-ssim: 0.1, discriminator: {weight: 0.02, start: 1000}}.
        zoom: enlarge each image by a random factor of up to this, and keep as much of it as fits. Small images are
            sharper than photographs, and a codebook of them has few codes for what is smooth.
        shrink: cut out of each image up to so many times more of a side, where it is as large (see `short_side`), and
            reduce that: photographs at several scales.
        clip: the largest norm of the gradient, that of the networks and that of the quantizer by itself; 0 for any.
    """

    freeze_norm: float = number(0.0, SHARE)
    loss: dict[str, Any] | str = "mse"
    zoom: float = number(1.0, Range(1, 100, whole=False))
    shrink: float = number(1.0, Range(1, 100, whole=False))
    clip: float = number(0.0, Range(0, 1e9, whole=False))

    def norm_share(self, step: int) -> float:
        """How much of batch normalization is its running averages at `step`, counted from 0: 0 in the first 300, and
        rising from 0 to 1 over 300 steps, or a quarter of the steps that are left.
        """
        first = max(self.steps - self.freeze_norm * self.steps, NORM_STEPS)
        rise = min(NORM_STEPS, (self.steps - first) / 4)
        return min(max((step - first) / rise, 0.0), 1.0) if rise > 0 else 0.0


@dataclass
class PriorTrainingSettings(Schedule):
    """Settings of a prior's training: Adam on the negative log-likelihood of the tokens.

    Args:
        weight_decay: of the weights that multiply, of tables of codes and of labels, but not of places, biases and
            norms; decoupled from the gradient (AdamW).
        patience: measurements without a better held-out loss after which training stops; 0 never stops it. The weights
            of the best measurement are kept either way.
    """

    batch_size: int = number(64, Range(1, 10**6))
    learning_rate: float = number(1e-3, Range(0, 10, whole=False, positive=True))
    weight_decay: float = number(0.01, Range(0, 10, whole=False))
    patience: int = number(5, Range(0, 10**9))


@dataclass
class PriorSettings:
    """A prior.

    Args:
        prior: static (frequencies, closed form), pixelcnn, transformer or masked.
        options: the prior's own arguments, such as {width: 192, layers: 6, gain: mixture}.
        conditional: learn the tokens of each class of images, so that a class can be asked for.
        training: how it is trained; the static prior is fitted at once.
    """

    prior: str = "transformer"
    options: dict[str, Any] = field(default_factory=dict)
    conditional: bool = False
    training: PriorTrainingSettings = field(default_factory=PriorTrainingSettings)


@dataclass
class SamplingSettings:
    """Settings of drawing tokens from a prior.

    Args:
        temperature: below 1 prefers what is likely, 0 always takes it.
        top_k: draw among so many of the likeliest codes only.
        top_p: draw among the likeliest codes that together have this probability only.
        guidance: how much more a named class counts than images of any class; 1 is what was learned.
        passes: of a masked prior, in how many passes it draws; 16 if not given.
        noise: of a masked prior, how far chance decides which codes a pass keeps, falling to 0 at the last; 4.5 if not
            given, and 0 keeps the surest.
        details: temperature of the coefficients of a hybrid model, drawn from what the codes say of them; 1 if not
            given, and 0 takes what they expect.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0
    passes: int | None = None
    noise: float | None = None
    details: float | None = None


@dataclass
class Recipe:
    """A tokenizer and its training, with the name that tables give it.

    Args:
        title: what tables call it.
        group: the heading it stands under: published, healthy, continuous reference, or one of your own.
        description: one sentence on what it is.
        model: the tokenizer.
        training: how it is trained.
    """

    title: str = ""
    group: str = "custom"
    description: str = ""
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    name: str = ""


@dataclass
class DataSettings:
    """The images that a command reads.

    Args:
        data: `photos` (the sample photographs of scikit-image and scikit-learn), a folder of images, a parquet file
            or a folder of them, a mini-ImageNet folder, or a hub id such as uoft-cs/cifar10.
        size: side of the square crops, in pixels.
        short_side: the short side of the images that crops are cut from, in pixels; larger images are reduced to it,
            those between it and `size` stay as they are. If not given, `size`: a crop shows nearly all of its image.
            The sample photographs keep their own size.
        skip_unreadable: leave out images that cannot be read, and list them, instead of stopping.
        stream: read the images shard by shard, for sets that fit neither in memory nor on disk: a hub id, parquet files
            or WebDataset tar files.
        shuffle_buffer: images of a stream that are held back and drawn from at random.
        workers: processes that read and decode images for each training process; 0 for none of their own.
    """

    data: str = "photos"
    size: int = number(32, SIZE)
    short_side: int | None = number(None, SIZE)
    skip_unreadable: bool = False
    stream: bool = False
    shuffle_buffer: int = number(1000, Range(1, 10**7))
    workers: int = number(0, Range(0, 1024))

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.short_side is not None and self.stream:
            raise ConfigError(f"short_side is {self.short_side}, but a stream is reduced to the size; leave it out")
        if self.short_side is not None and self.short_side < self.size:
            raise ConfigError(f"short_side is {self.short_side}; it must be at least the size, {self.size}")

    @classmethod
    def of(cls, data: "DataSettings | str | Path", size: int | None = None) -> "DataSettings":
        """The settings of a data string, at that size or the default one; settings as they are, but for the size."""
        settings = data if isinstance(data, DataSettings) else cls(str(data))
        return replace(settings, size=settings.size if size is None else size)


@dataclass
class Plan:
    """A comparison: several recipes on the same images, in the same order, for the same steps and seeds.

    Args:
        recipes: names or YAML files of recipes.
        seeds: each recipe is trained once with each of these.
        first_seed_only: recipes trained with the first seed alone.
        steps: optimizer steps of every run.
        batch_size: images per step of every run.
        validation: training images that are kept from the training and measured for the curves; the test images are
            then seen once, at the end. 0 measures the curves on test images.
        eval_images: held-out images measured for the curves; the final numbers use all of them.
        eval_every: steps between two points of the test curves; 0 for 20 points per run.
        overrides: recipe keys set to the same value in every recipe, such as {model.dim: 64} or {model: {dim: 64}}.
        jobs: runs trained at the same time, each in a process of its own with its share of the cores.
        watch: warn of collapsing codes, runaway gains and loss spikes, stop at them, or neither (off).
    """

    recipes: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    first_seed_only: list[str] = field(default_factory=list)
    steps: int = number(3000, COUNT)
    batch_size: int = number(128, Range(1, 10**6))
    validation: int = number(0, Range(0, 10**9))
    eval_images: int = number(2048, COUNT)
    eval_every: int = number(0, Range(0, 10**9))
    overrides: dict[str, Any] = field(default_factory=dict)
    jobs: int = number(1, Range(1, 1024))
    watch: Literal["off", "warn", "stop"] = "warn"

    def __post_init__(self) -> None:
        if not self.recipes + self.first_seed_only:
            raise ConfigError("compare needs recipes; name some with --recipes, such as --recipes vector projected")
        if not self.seeds:
            raise ConfigError("compare needs at least one seed; give --seeds 0")
        check_numbers(self)
        for seed in self.seeds:
            SEED.check("seeds", seed)

    def runs(self) -> list[tuple[str, int]]:
        """Every (recipe, seed) to train, in the order of the table."""
        return [(r, s) for r in self.recipes for s in self.seeds] + [(r, self.seeds[0]) for r in self.first_seed_only]

    def recipe_overrides(self) -> dict[str, Any]:
        """The keys that every recipe is given."""
        common = {
            "training.steps": self.steps,
            "training.batch_size": self.batch_size,
            "training.eval_every": self.eval_every or max(1, self.steps // 20),
        }
        return common | dotted(self.overrides)


def changed(settings: T, **values: Any) -> T:
    """The settings with the values that are not None in place of their own."""
    return replace(settings, **{name: value for name, value in values.items() if value is not None})  # type: ignore[type-var]


def dotted(overrides: dict[str, Any]) -> dict[str, Any]:
    """{"model": {"dim": 64}} as {"model.dim": 64}; other keys as they are."""
    keys: dict[str, Any] = {}
    for key, value in overrides.items():
        is_part = key in ("model", "training") and isinstance(value, dict)
        keys |= {f"{key}.{inner}": v for inner, v in value.items()} if is_part else {key: value}
    return keys


@dataclass
class CodecSettings:
    """Settings of compressing an image.

    Args:
        stages: of a model with several codes per position, use only the first so many; all if not given.
        rate_weight: lambda; choose codes and levels by their error and lambda times their bits. In squared units of
            what is quantized; 0 leaves the choice as the model was trained to make it, and no file is larger than its.
        quality: of a hybrid model, from 1 to 100; 75 if not given. The other dials are those of models without
            coefficients.
        target_bpp: the best quality in at most so many bits per pixel, by stages and lambda, or by the step.
        target_psnr: the fewest bits with at least so many decibels, by stages and lambda, or by the step.
        mode: contextual probabilities take fewer bits, static ones less time.
    """

    stages: int | None = number(None, COUNT)
    rate_weight: float = number(0.0, Range(0, 10**9, whole=False))  # in float32, more would drown every error
    quality: float | None = number(None, Range(1, 100, whole=False))
    target_bpp: float | None = number(None, Range(0, 10**4, whole=False, positive=True))
    target_psnr: float | None = number(None, Range(0, 10**4, whole=False, positive=True))
    mode: Literal["static", "contextual"] = "contextual"

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.target_bpp is not None and self.target_psnr is not None:
            raise ConfigError("target_bpp and target_psnr cannot both be met; give one of them")
        for key in ("rate_weight", "quality"):
            if getattr(self, key) and (self.target_bpp or self.target_psnr):
                raise ConfigError(f"a target chooses what is left out itself; give it without {key}")
        if self.mode not in ("static", "contextual"):
            raise ConfigError(f"mode is {self.mode!r}; use 'static' or 'contextual'")
