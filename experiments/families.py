"""The families of quantizers that are compared at equal bits."""

from hybridvq.report.result import RecipeRuns

FAMILIES = {"gain-shape": "Gain-shape", "fsq": "FSQ", "vector": "VQ-VAE"}
OURS = "gain-shape"
BITS = {"entropy_bits_per_position": "entropy", "contextual_bits_per_position": "contextual coder"}


def family(recipe: RecipeRuns) -> str:
    """The quantizer that a healthy model has, as FAMILIES names it; empty for others, and for float gains."""
    start = next((start for start in FAMILIES if recipe.name == start or recipe.name.startswith(f"{start}-")), "")
    return "" if recipe.group == "published" or recipe.gains else start


def points_of(recipes: list[RecipeRuns], key: str) -> dict[str, list[tuple[float, float]]]:
    """(bits per position, test MSE) of the members of each family that have both, means over seeds."""
    found: dict[str, list[tuple[float, float]]] = {}
    for recipe in recipes:
        bits = recipe.stat(key)
        if family(recipe) and bits.count:
            found.setdefault(family(recipe), []).append((bits.mean, recipe.stat("test_mse").mean))
    return found
