"""Several recipes, same data and steps, one result.

    plan ──► run_one(recipe, seed) ──► runs/<recipe>-seed<n>/run.json ──┐
                      ...                                               ├──► result.json
             run_one(recipe, seed) ──► runs/<recipe>-seed<n>/run.json ──┘

A run that is finished is not trained again, and one that was cut off continues from its checkpoint.
"""

from hybridvq.comparison.plan import compare

__all__ = ["compare"]
