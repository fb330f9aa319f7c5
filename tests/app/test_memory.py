"""What the page keeps of a visitor is a small picture; everything larger is bounded for all of them together."""

import gc
import shutil

import numpy as np
import pytest
from PIL import Image

from app.test_door import FILE, result
from codec.models import photo
from hybridvq.app import reconstruct
from hybridvq.app.page import SESSIONS
from hybridvq.app.picture import Picture, sample_picture
from hybridvq.app.tabs import RECENT

MANY = RECENT + 2  # sessions, here instead of SESSIONS
SHOWN = "gain-shape", "vq", 1  # what is shown in the first tab
LARGEST_TEXT = 10_000  # characters; a result has more


def alive():
    """How much of what is shown is kept; other tests in this process may keep some too."""
    gc.collect()
    return sum(type(thing) is reconstruct.Shown for thing in gc.get_objects())


@pytest.fixture
def others():
    """What was kept before anybody came."""
    return alive()


@pytest.fixture
def visitors(others, client, site, tmp_path):
    """More visitors than are remembered, each with a picture of their own."""
    site.state.blocks.state_holder.capacity = MANY
    names = [f"visitor{number}" for number in range(MANY + 2)]
    for number, name in enumerate(names):
        Image.fromarray(photo(24, 32 + number)).save(tmp_path / "mine.png")
        (path,) = client.post(
            "/gradio_api/upload", files={"files": ("mine.png", (tmp_path / "mine.png").read_bytes())}
        ).json()
        result(client, site, "uploaded", {"path": path, "meta": FILE}, session=name)
        result(client, site, "show", None, None, *SHOWN, session=name)
    yield names
    for left in site.state.uploads.root.iterdir():
        shutil.rmtree(left)


def test_sessions_are_bounded(site):
    assert site.state.blocks.state_holder.capacity == SESSIONS


def test_visitors_leave_a_picture(others, client, site, visitors):
    sessions = site.state.blocks.state_holder.session_data
    assert len(sessions) <= MANY
    for state in list(sessions.values())[:-1]:
        for value in state.state_data.values():
            assert value is None or isinstance(value, Picture)
        assert sum(len(str(config)) for config in state.config_values.values()) < LARGEST_TEXT
    assert alive() - others <= RECENT


def test_who_came_before_is_worked_on_again(client, site, visitors):
    """After others took its place, the picture is encoded anew, to the same result."""
    last, early = visitors[-1], visitors[-RECENT - 1]
    for name in (early, last):
        first = result(client, site, "show", None, None, *SHOWN, session=name)
        assert "Original" in first
        assert result(client, site, "show", None, None, *SHOWN, session=name) == first
    assert (
        result(client, site, "show", None, None, *SHOWN, session=visitors[0]).count("Choose a sample photograph") == 1
    )


def test_samples_are_everybodys():
    assert sample_picture("coffee") is sample_picture("coffee")
    assert Picture("a", np.zeros((1, 1, 3), np.uint8)) != Picture("a", np.zeros((1, 1, 3), np.uint8))
