import inspect

import pytest

from hybridvq import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS)
def test_one_tree_and_its_drawing(kind):
    assert issubclass(kind, errors.HybridVQError)
    assert kind.__name__ in errors.__doc__


def test_wrong_values_are_value_errors_too():
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ShapeError, ValueError)
