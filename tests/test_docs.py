"""The code in the documentation runs as it stands."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_layer_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "layer.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
