"""The controls of each tab, wired to what computes it."""

import functools
from typing import Any

import gradio as gr
from torch import Tensor

from hybridvq.app import codebook, compare, compress, generate, reconstruct
from hybridvq.app.chooser import BUTTON, LIVE, QUIET, Choice, guarded, needed, taken, upload_button
from hybridvq.app.models import Models, PriorModel
from hybridvq.app.picture import Picture, sample_picture
from hybridvq.app.uploads import Uploads
from hybridvq.app.values import choice, number

RECENT = 4  # latents that are kept, of all visitors together: up to some 25 MB each
BAR = gr.Progress()  # as a default of a handler, it tells Gradio to show what it is told


def reconstruct_tab(models: Models, choice_of: Choice, tab: gr.Tab) -> None:
    named = models.named
    gr.Markdown("A picture turned into tokens and back: what the model keeps, what it loses, and what its codes say.")
    with gr.Row():
        which = gr.Dropdown(list(named), value=models.model.title, label="Model", elem_id="reconstruct-model")
        label = "Compared with"
        beside = gr.Dropdown(list(named), value=models.baseline.title, label=label, elem_id="reconstruct-beside")
        has_gains = models.model.space.gain != "none"
        label = "Strength of details: all gains times"
        scale = gr.Slider(0, 2, 1, step=0.05, label=label, visible=has_gains, elem_id="reconstruct-scale")
    out = gr.HTML(elem_id="reconstruct-result")

    @functools.lru_cache(maxsize=RECENT)
    def encoded(picture: Picture, title: str) -> Tensor:
        return reconstruct.encode(named[title], picture)

    @functools.lru_cache(maxsize=RECENT)
    def as_is(picture: Picture, title: str) -> reconstruct.Shown:
        return reconstruct.decode(named[title], picture, encoded(picture, title))

    def show(picture: Picture, which: Any, beside: Any, scale: Any) -> str:
        own, other = (choice(name, value, list(named)) for name, value in (("the model", which), ("the other", beside)))
        factor = number("all gains times", scale, 0, 2)
        made = reconstruct.decode(named[own], picture, encoded(picture, own), factor)
        return reconstruct.render(picture, (named[other], named[own]), (as_is(picture, other), made))

    def scaled(which: Any) -> dict[str, Any]:
        """An update of the slider for a model."""
        return gr.update(visible=which in named and named[which].space.gain != "none", value=1)

    dials = [which, beside, scale]
    go_on = choice_of.shown_by(tab, show, dials, out)
    inputs = [choice_of.picture, choice_of.sample, *dials]
    changed = which.input(scaled, which, scale, api_visibility="private", preprocess=False, show_progress="hidden")
    changed.then(go_on, inputs, out, **QUIET)
    beside.input(go_on, inputs, out, **QUIET)
    scale.input(go_on, inputs, out, **LIVE)


def compress_tab(models: Models, uploads: Uploads, choice_of: Choice, tab: gr.Tab) -> None:
    gr.Markdown("A picture as a real file, and beside it JPEG and WebP files of about as many bytes.")
    named, first = models.named, models.hybrid
    with gr.Row():
        which = gr.Dropdown(list(named), value=first.title, label="Model", elem_id="compress-model")
        by = compress.dials_of(first)
        dial = gr.Radio(list(by), value=by[0], label="Set the size by", elem_id="compress-dial")
        quality = gr.Slider(*compress.OWN_QUALITIES, 50, step=1, label="Quality", elem_id="compress-quality")
        label = "Save bits (0: as the model was trained)"
        rate_weight = gr.Slider(0, 1, 0, step=0.025, label=label, visible=False, elem_id="compress-lambda")
        label = "At most so many bits per pixel"
        target = gr.Number(0.5, step=0.05, label=label, visible=False, elem_id="compress-target")
    with gr.Row():
        go = gr.Button("Compress", variant="primary", elem_id="compress-go", **BUTTON)
        opened = upload_button("Open an .hvq file", ".hvq", "compress-open")
        seed = gr.Number(0, precision=0, label="Drawn details: random seed", elem_id="compress-seed")
        label = "Drawn details: how much they vary"
        temperature = gr.Slider(0, compress.WARMEST, 1, step=0.05, label=label, elem_id="compress-temperature")
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

    dials = [which, dial, quality, rate_weight, target, seed, temperature]
    go_on = choice_of.shown_by(tab, work, dials, out)
    for event in (which.input, dial.input):
        event(shown, [which, dial], dials[1:], api_visibility="private", preprocess=False)
    for event in (go.click, quality.release, rate_weight.release, temperature.release):
        event(go_on, [choice_of.picture, choice_of.sample, *dials], out, **QUIET)
    opened.upload(guarded(read), [opened, seed, temperature], out, **QUIET)


def generate_tab(model: PriorModel, choice_of: Choice) -> None:
    gr.Markdown("New pictures, drawn code by code, or the missing half of the photograph above.")
    with gr.Row():
        seed = gr.Number(0, precision=0, label="Random seed", elem_id="generate-seed")
        count = gr.Slider(1, generate.MOST, 10, step=1, label="How many")
        temperature = gr.Slider(0, generate.WARMEST, 1, step=0.05, label="How much they vary (temperature)")
    with gr.Row():
        top_k = gr.Number(0, precision=0, label="Choose among the k likeliest codes (0: all)")
        top_p = gr.Slider(generate.LEAST_P, 1, 1, step=0.05, label="Choose among this share of the likeliest (1: all)")
    with gr.Row(visible=bool(model.classes)):
        choices = generate.choices_of(model)
        label = gr.Dropdown(choices, value=choices[-1], label="Class", elem_id="generate-class")
        guidance = gr.Slider(
            *(1, generate.STRONGEST, generate.STRONG),
            step=0.5,
            label="How closely to follow the class (1: as learned)",
            visible=model.prior.knows_unlabeled,
            elem_id="generate-guidance",
        )
    with gr.Row():
        go = gr.Button("New pictures", variant="primary", elem_id="generate-go", **BUTTON)
        complete = gr.Button("Complete the photograph", elem_id="generate-complete", **BUTTON | {"min_width": 240})
        keep = gr.Radio(
            [(f"{half} half", half) for half in generate.HALVES], value="top", label="Keep", elem_id="generate-keep"
        )
    out = gr.HTML(elem_id="generate-result")

    def new(bar: gr.Progress = BAR, *dials: Any, picture: Picture | None = None, keep: Any = "top") -> str:
        seed, count, *numbers, label = dials
        grid = generate.draw(model, generate.settings_of(*numbers), seed, count, label, picture, keep, bar)
        kept = f"what is kept of {picture.name}, then " if picture else ""
        return generate.render(model, grid, int(count) + bool(picture), f"{kept}seed {int(seed)}")

    def continued(picture: Picture | None, sample: Any, keep: Any, *dials: Any) -> str:
        return new(BAR, *dials, picture=picture or sample_picture(needed(sample)), keep=keep)

    dials = [seed, count, temperature, top_k, top_p, guidance, label]
    go.click(guarded(new), dials, out, **QUIET)
    complete.click(guarded(continued), [choice_of.picture, choice_of.sample, keep, *dials], out, **QUIET)


def codebook_tab(models: Models, tab: gr.Tab) -> None:
    gr.Markdown("What each code of a model stands for, and how often it is used on the sample photographs.")
    names = {model.title: model for model in (models.model, models.baseline)}
    which = gr.Radio(list(names), value=models.model.title, label="Model", elem_id="codebook-model")
    out = gr.HTML(elem_id="codebook-result")

    @functools.cache  # of the models alone, the same for everybody
    def drawn(name: str) -> str:
        choice("the model", name, list(names))
        return codebook.render(names[name], codebook.read_codebook(names[name]))

    for event in (tab.select, which.input):
        event(guarded(drawn), which, out, **QUIET)


def compare_tab(uploads: Uploads, tab: gr.Tab) -> None:
    gr.Markdown(
        "Several tokenizers trained on the same images. The comparison below ships with hybridvq; the `result.json` "
        "that `hybridvq compare` writes opens here too."
    )
    with gr.Row():
        opened = upload_button("Open a result.json", ".json", "compare-open")
    out = gr.HTML(elem_id="compare-result")

    @functools.cache
    def shipped() -> str:
        return compare.open_result(compare.SHIPPED)

    tab.select(guarded(shipped), None, out, **QUIET)
    opened.upload(guarded(functools.partial(taken, compare.open_result, uploads)), opened, out, **QUIET)
