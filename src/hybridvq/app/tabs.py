"""The controls of each tab, wired to what computes it.

Whatever goes wrong becomes a sentence where the result would have been. A visitor's picture is in a `gr.State`, which
belongs to one session; handlers keep nothing.
"""

import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from torch import Tensor

from hybridvq.app import codebook, compare, compress, generate, markup, reconstruct
from hybridvq.app.models import Models, PriorModel
from hybridvq.app.picture import SAMPLES, UPLOAD_PIXELS, Picture, open_picture, sample_picture
from hybridvq.app.uploads import Uploads, remove
from hybridvq.app.values import choice, number
from hybridvq.errors import ConfigError, HybridVQError

T = TypeVar("T")
Work = tuple[reconstruct.Shown, Tensor]  # what the baseline makes of a picture, and the model's z

# One computation at a time bounds the memory of a page with many visitors; nobody else may call these by name.
# What a browser sends is checked here, in sentences, instead of by Gradio.
QUIET: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "preprocess": False,
}
LIVE: dict[str, Any] = {**QUIET, "trigger_mode": "always_last", "show_progress": "hidden"}
BAR = gr.Progress()  # as a default of a handler, it tells Gradio to show what it is told
STATE_SECONDS = 3600
RECENT = 4  # pictures whose latents are kept, of all visitors together: up to some 25 MB each
BUTTON: dict[str, Any] = {"scale": 0, "min_width": 190, "size": "md", "elem_classes": "action"}
LIMIT = f"Uploads may have up to {UPLOAD_PIXELS // 10**6} megapixels; they are deleted once they are read."


def guarded(handler: Callable[..., Any], *lost: Any) -> Callable[..., Any]:
    """The handler, with a sentence as its last output, after `lost`, where it fails."""

    @functools.wraps(handler)
    def run(*values: Any) -> Any:
        try:
            return handler(*values)
        except HybridVQError as error:
            shown = markup.problem(str(error))
        except Exception:  # a visitor can do nothing about a fault of the page, and must not read its code
            traceback.print_exc(file=sys.stderr)
            shown = markup.problem("Something went wrong here; the terminal that the page was started in says what.")
        return (*lost, shown) if lost else shown

    return run


def taken(reader: Callable[[Path], T], uploads: Uploads, sent: Any) -> T:
    """What a reader makes of an uploaded file, which is deleted.

    Raises:
        DataError: there is none, or no longer.
    """
    path = uploads.find(sent["path"] if isinstance(sent, dict) else sent)
    try:
        return reader(path)
    finally:
        remove(path.parent)


def needed(picture: T | None) -> T:
    """What a session keeps.

    Raises:
        ConfigError: it keeps nothing.
    """
    if picture is None:
        raise ConfigError("Choose a sample photograph or upload a picture first.")
    return picture


def chooser(tab: str) -> tuple[gr.Radio, gr.UploadButton]:
    """Sample photographs, and a button to upload one's own."""
    with gr.Row():
        samples = [(name.replace("_", " "), name) for name in SAMPLES]
        sample = gr.Radio(samples, value=SAMPLES[0], label="Sample photographs", elem_id=f"{tab}-samples")
        upload = upload_button("Upload a picture", "image", f"{tab}-upload")
    return sample, upload


def upload_button(label: str, kind: str, name: str) -> gr.UploadButton:
    """A button that uploads one file of a kind or with an ending."""
    return gr.UploadButton(label, file_types=[kind], variant="secondary", elem_id=name, **BUTTON)


def entries(
    work: Callable[..., str], uploads: Uploads
) -> tuple[Callable[..., str], Callable[..., tuple[None, Picture, str]]]:
    """Two ways to `work` on a picture: the one that is chosen or kept, and one that was just uploaded."""

    def go_on(picture: Picture | None, sample: str | None, *dials: Any) -> str:
        return work(sample_picture(sample) if sample else needed(picture), *dials)

    def uploaded(sent: Any, *dials: Any) -> tuple[None, Picture, str]:
        picture = taken(open_picture, uploads, sent)
        return None, picture, work(picture, *dials)

    return go_on, uploaded


def reconstruct_tab(models: Models, uploads: Uploads, page: gr.Blocks) -> None:
    pair = (models.baseline, models.model)
    gr.Markdown(f"What comes back of a picture from its tokens, what is lost, and which tokens lie where. {LIMIT}")
    sample, upload = chooser("reconstruct")
    with gr.Row():
        has_gains = models.model.space.gain != "none"
        scale = gr.Slider(0, 2, 1, step=0.05, label="All gains times", visible=has_gains, elem_id="reconstruct-scale")
    state = gr.State(time_to_live=STATE_SECONDS)
    out = gr.HTML(elem_id="reconstruct-result")

    @functools.lru_cache(maxsize=RECENT)
    def encoded(picture: Picture) -> Work:
        other, z = (reconstruct.encode(model, picture) for model in pair)
        return reconstruct.decode(models.baseline, picture, other), z

    def show(picture: Picture | None, scale: Any) -> str:
        factor = number("all gains times", scale, 0, 2)
        picture = needed(picture)
        other, z = encoded(picture)
        own = reconstruct.decode(models.model, picture, z, factor)
        return reconstruct.render(picture, pair, (other, own))

    def chosen(name: str, scale: Any) -> tuple[Picture, str]:
        picture = sample_picture(name)
        return picture, show(picture, scale)

    _, uploaded = entries(show, uploads)
    for event in (sample.input, page.load):
        event(guarded(chosen, None), [sample, scale], [state, out], **QUIET)
    upload.upload(guarded(uploaded, None, None), [upload, scale], [sample, state, out], **QUIET)
    scale.change(guarded(show), [state, scale], out, **LIVE)


def compress_tab(models: Models, uploads: Uploads) -> None:
    gr.Markdown(f"A picture as a real file, beside JPEG and WebP of about as many bytes. {LIMIT}")
    named, first = models.named, models.hybrid
    sample, upload = chooser("compress")
    with gr.Row():
        which = gr.Radio(list(named), value=first.title, label="Model", elem_id="compress-model")
        by = compress.dials_of(first)
        dial = gr.Radio(list(by), value=by[0], label="Set by", elem_id="compress-dial")
    with gr.Row():
        quality = gr.Slider(*compress.OWN_QUALITIES, 50, step=1, label="Quality", elem_id="compress-quality")
        label = "Lambda (0: as the model was trained)"
        rate_weight = gr.Slider(0, 1, 0, step=0.025, label=label, visible=False, elem_id="compress-lambda")
        label = "At most so many bits per pixel"
        target = gr.Number(0.5, step=0.05, label=label, visible=False, elem_id="compress-target")
        seed = gr.Number(0, precision=0, label="Seed of drawn details", elem_id="compress-seed")
        label = "Temperature of drawn details"
        temperature = gr.Slider(0, compress.WARMEST, 1, step=0.05, label=label, elem_id="compress-temperature")
    with gr.Row():
        go = gr.Button("Compress", variant="primary", elem_id="compress-go", **BUTTON)
        opened = upload_button("Open an .hvq file", ".hvq", "compress-open")
    state = gr.State(time_to_live=STATE_SECONDS)
    out = gr.HTML(elem_id="compress-result")

    def work(picture: Picture, which: Any, dial: Any, *values: Any) -> str:
        model = named[choice("the model", which, list(named))]
        settings, draw = compress.settings_of(model, dial, *values[:3]), compress.draw_of(*values[3:])
        return compress.render(model, picture, compress.compress(model, picture, settings, draw))

    def shown(which: Any, dial: Any) -> list[dict[str, Any]]:
        """Updates of the dial and of the controls in `dials` for a model."""
        model = named.get(which, first)
        by = compress.dials_of(model)
        now = dial if dial in by else by[0]
        highest = 1.0 if model.codec is None or model.is_hybrid else compress.highest_rate_weight(model.codec)
        return [
            gr.update(choices=list(by), value=now),
            gr.update(visible=now == compress.QUALITY),
            gr.update(visible=now == compress.LAMBDA, maximum=highest, step=highest / 40, value=0),
            gr.update(visible=now == compress.TARGET),
            gr.update(visible=model.is_hybrid),
            gr.update(visible=model.is_hybrid),
        ]

    def read(sent: Any, seed: Any, temperature: Any) -> str:
        return taken(lambda path: compress.open_file(models, path, seed, temperature), uploads, sent)

    go_on, uploaded = entries(work, uploads)
    dials = [which, dial, quality, rate_weight, target, seed, temperature]
    for event in (which.input, dial.input):
        event(shown, [which, dial], dials[1:], api_visibility="private", preprocess=False)
    for event in (go.click, sample.input, quality.release, rate_weight.release, temperature.release):
        event(guarded(go_on), [state, sample, *dials], out, **QUIET)
    upload.upload(guarded(uploaded, None, None), [upload, *dials], [sample, state, out], **QUIET)
    opened.upload(guarded(read), [opened, seed, temperature], out, **QUIET)


def generate_tab(model: PriorModel, uploads: Uploads) -> None:
    gr.Markdown("New pictures, drawn token by token from the prior.")
    with gr.Row():
        seed = gr.Number(0, precision=0, label="Seed", elem_id="generate-seed")
        count = gr.Slider(1, generate.MOST, 4, step=1, label="Pictures")
        temperature = gr.Slider(0, generate.WARMEST, 1, step=0.05, label="Temperature")
    with gr.Row():
        top_k = gr.Number(0, precision=0, label="Top k (0: all codes)")
        top_p = gr.Slider(generate.LEAST_P, 1, 1, step=0.05, label="Top p (1: all codes)")
    with gr.Row(visible=bool(model.classes)):
        choices = generate.choices_of(model)
        label = gr.Dropdown(choices, value=choices[0], label="Class", elem_id="generate-class")
        guidance = gr.Slider(
            *(1, generate.STRONGEST, generate.STRONG),
            step=0.5,
            label="Guidance towards the class (1: as learned)",
            visible=model.prior.knows_unlabeled,
            elem_id="generate-guidance",
        )
    with gr.Row():
        go = gr.Button("Generate", variant="primary", elem_id="generate-go", **BUTTON)
    gr.Markdown(f"Or keep half of a photograph and draw the rest anew. {LIMIT}")
    sample, upload = chooser("generate")
    with gr.Row():
        keep = gr.Radio(
            [(f"{half} half", half) for half in generate.HALVES], value="top", label="Keep", elem_id="generate-keep"
        )
        complete = gr.Button("Complete", variant="primary", elem_id="generate-complete", **BUTTON)
    state = gr.State(time_to_live=STATE_SECONDS)
    out = gr.HTML(elem_id="generate-result")

    def new(bar: gr.Progress = BAR, *dials: Any, picture: Picture | None = None, keep: Any = "top") -> str:
        seed, count, *numbers, label = dials
        grid = generate.draw(model, generate.settings_of(*numbers), seed, count, label, picture, keep, bar)
        kept = f"what is kept of {picture.name}, then " if picture else ""
        return generate.render(model, grid, int(count) + bool(picture), f"{kept}seed {int(seed)}")

    def continued(picture: Picture, keep: Any, *dials: Any) -> str:
        return new(BAR, *dials, picture=picture, keep=keep)

    go_on, uploaded = entries(continued, uploads)
    dials = [seed, count, temperature, top_k, top_p, guidance, label]
    go.click(guarded(new), dials, out, **QUIET)
    complete.click(guarded(go_on), [state, sample, keep, *dials], out, **QUIET)
    upload.upload(guarded(uploaded, None, None), [upload, keep, *dials], [sample, state, out], **QUIET)


def codebook_tab(models: Models, tab: gr.Tab) -> None:
    gr.Markdown("Every code decoded alone, and how often each is used on the sample photographs.")
    names = {model.title: model for model in (models.model, models.baseline)}
    which = gr.Radio(list(names), value=models.model.title, label="Model", elem_id="codebook-model")
    out = gr.HTML(elem_id="codebook-result")

    @functools.cache  # of the models alone, the same for everybody
    def drawn(name: str) -> str:
        choice("the model", name, list(names))
        return codebook.render(names[name], codebook.read_codebook(names[name]))

    for event in (tab.select, which.input):
        event(guarded(drawn), which, out, **QUIET)


def compare_tab(uploads: Uploads) -> None:
    gr.Markdown("The curves and the table of a `result.json` that `hybridvq compare` wrote.")
    with gr.Row():
        opened = upload_button("Open a result.json", ".json", "compare-open")
    out = gr.HTML(elem_id="compare-result")
    opened.upload(guarded(functools.partial(taken, compare.open_result, uploads)), opened, out, **QUIET)
