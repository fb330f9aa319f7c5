import pytest

from codec import models


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A gain-shape model with K = 120 and L = 4, and its tables."""
    return models.save_codec(tmp_path_factory.mktemp("gain-shape") / "model")


@pytest.fixture(scope="session")
def codec(folder):
    return models.load(folder)


@pytest.fixture(scope="session")
def staged(tmp_path_factory):
    """The codec of one with S = 3."""
    return models.load(models.save_codec(tmp_path_factory.mktemp("staged"), stages=3))


@pytest.fixture(scope="session")
def rated(tmp_path_factory):
    """The codec of one trained to weigh bits."""
    return models.load(models.save_codec(tmp_path_factory.mktemp("rated"), rate_weight=0.3))


@pytest.fixture(scope="session")
def vector(tmp_path_factory):
    """The codec of a VQ-VAE, f = 8."""
    return models.load(models.save_codec(tmp_path_factory.mktemp("vector"), "vector", f=8))
