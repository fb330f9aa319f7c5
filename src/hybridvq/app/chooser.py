"""The picture that all tabs work on, and what their handlers share.

Whatever goes wrong becomes a sentence where the result would have been. A visitor's picture is in a `gr.State`, which
belongs to one session; handlers keep nothing.
"""

import functools
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from hybridvq.app import markup
from hybridvq.app.picture import SAMPLES, UPLOAD_PIXELS, Picture, open_picture, sample_picture
from hybridvq.app.uploads import Uploads, remove
from hybridvq.errors import ConfigError, HybridVQError

T = TypeVar("T")

# One computation at a time bounds the memory of a page with many visitors; nobody else may call these by name.
# What a browser sends is checked here, in sentences, instead of by Gradio.
QUIET: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "preprocess": False,
}
LIVE: dict[str, Any] = {**QUIET, "trigger_mode": "always_last", "show_progress": "hidden"}
STATE_SECONDS = 3600
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


@dataclass(frozen=True)
class Choice:
    """The picture that all tabs work on, and the tab that is open.

    Attributes:
        sample: the control of sample photographs; none is chosen after an upload.
        picture: the session's `Picture`.
        tab: the name of the open tab.
        events: after which `picture` is another.
    """

    sample: gr.Radio
    picture: gr.State
    tab: gr.State
    events: list[Any]

    def shown_by(self, tab: gr.Tab, show: Callable[..., str], dials: list[Any], out: gr.HTML) -> Callable[..., str]:
        """Show a picture's result in a tab when it opens, and when the picture changes while it is open.

        Returns the handler, for events of the tab's own controls, with inputs [picture, sample, *dials].
        """
        name = str(tab.label)

        def go_on(picture: Picture | None, sample: str | None, *values: Any) -> str:
            return show(picture or sample_picture(needed(sample)), *values)

        go_on.__name__ = show.__name__

        def if_open(opened: str, *values: Any) -> Any:
            return guarded(go_on)(*values) if opened == name else gr.skip()

        inputs = [self.picture, self.sample, *dials]
        tab.select(lambda: name, None, self.tab, show_progress="hidden", api_visibility="private")
        tab.select(guarded(go_on), inputs, out, **QUIET)
        for event in self.events:
            event.then(if_open, [self.tab, *inputs], out, **QUIET)
        return guarded(go_on)


def picture_chooser(uploads: Uploads, page: gr.Blocks, first: str) -> Choice:
    """Sample photographs, and a button to upload one's own, for all tabs, of which the `first` is open."""
    with gr.Row():
        samples = [(name.replace("_", " "), name) for name in SAMPLES]
        sample = gr.Radio(samples, value=SAMPLES[0], label="Photograph", elem_id="picture-samples")
        upload = upload_button("Upload your own", "image", "picture-upload")
    said = gr.HTML(elem_id="picture-result")
    picture, tab = gr.State(time_to_live=STATE_SECONDS), gr.State(first)

    def chosen(name: Any) -> tuple[Picture, str]:
        return sample_picture(name), ""

    def uploaded(sent: Any) -> tuple[None, Picture, str]:
        made = taken(open_picture, uploads, sent)
        return None, made, markup.block(markup.note(f"All tabs show {made.name}. {made.note}"))

    asked = {**QUIET, "show_progress": "hidden"}
    events = [
        event(guarded(chosen, gr.skip()), sample, [picture, said], **asked) for event in (sample.input, page.load)
    ]
    events.append(upload.upload(guarded(uploaded, gr.skip(), gr.skip()), upload, [sample, picture, said], **asked))
    return Choice(sample, picture, tab, events)


def upload_button(label: str, kind: str, name: str) -> gr.UploadButton:
    """A button that uploads one file of a kind or with an ending."""
    return gr.UploadButton(label, file_types=[kind], variant="secondary", elem_id=name, **BUTTON)
