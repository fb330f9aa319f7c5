"""What to install where an extra is missing: by name, or from the folder that the package was installed from."""

import importlib.metadata
import json

import pytest

from hybridvq.extras import EXTRA_OF, install, lacking


@pytest.fixture
def installed(monkeypatch):
    """As if the package had been installed from there."""

    class Distribution:
        def __init__(self, origin):
            self.origin = origin

        def read_text(self, name):
            assert name == "direct_url.json"
            return self.origin and json.dumps(self.origin)

    return lambda origin: monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(origin))


def test_from_an_index(installed):
    installed(None)
    assert install("train") == "pip install 'hybridvq[train]'"
    installed({"url": "https://example.com/hybridvq.git", "vcs_info": {}})
    assert install("train") == "pip install 'hybridvq[train]'"


def test_from_a_folder(installed, tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    folder.mkdir()
    installed({"url": folder.as_uri(), "dir_info": {"editable": True}})
    assert install("app") == f"pip install '{folder}[app]'"
    monkeypatch.chdir(folder)
    assert install("app") == "pip install '.[app]'"


def test_not_installed_at_all(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    for package, extra in EXTRA_OF.items():
        assert str(lacking(package)).endswith(f"{package}, which is not installed; pip install 'hybridvq[{extra}]'")
