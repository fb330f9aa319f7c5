"""Phrases that stop a reader stay out of what people read: pages, docstrings, comments, help, errors and cards."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
US = "American spelling"
KINDS = {".md", ".py", ".yaml", ".j2", ".toml", ".cff"}
COUNTED = r"bits?|bytes?|[kMGT]i?B|(image|shard|row|code|token|number|position|character|step|pixel|crop|seed|level)s?"
EACH = "second|minute|pixel|position|image|shard|code|token|group|node|stage|batch|step|level|row|class|channel|worker"
PHRASES = {
    r"models that come along": "bundled models",
    rf"(?i)\b({COUNTED}) an? ({EACH})\b": "per",
    r"\bone a (level|code|position|image)\b": "one per",
    r"\bone file an? \w+": "one file per",
    r"# At once\b": "Quick start",
    r"# Images in$|\[Images in\]": "Images",
    r"opens up the difference": "shows the difference",
    r"\b(stop|stops|end|ends|refused|refuses) (it )?with (a|one) sentence": "say which error it is",
    r"why was not looked into": "for a reason that was not investigated",
    r'"""(Of|For) (an?|the|its|one|some|several|each|all|whole) ': "begin with a verb or with what it is",
    r"for want of": "because ... is missing",
    r"the policy for odd": "how unusual images are handled",
    r"shall answer": "answers",
    r"and its like\b": "and similar ones",
    r"stop the run with their name": "stops the run with an error that names it",
    r"(?i)\b(\w*colour\w*|gr[e]y\w*|neighbour\w*|behaviour\w*|cent(red?|res)|licence\w*|artefact\w*|catalogue)\b": US,
    r"(?i)\b(re)?(optim|normal|minim|maxim|parameter|summar|organ|recogn|util|general)is(e|ed|es|er|ing|ations?)\b": US,
}
SKIPPED = {"CHANGELOG.md", "tests/test_words.py"}


def texts():
    """Every text under version control, by name: as it stands, and as one line, since phrases may be broken."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no clone, so nothing says which files are its own")
    for name in listed.stdout.split("\n"):
        path = ROOT / name
        if path.suffix in KINDS and path.is_file() and name not in SKIPPED:
            text = path.read_text(encoding="utf-8")
            yield name, text + "\0" + re.sub(r"\s*\n\s*(# )?", " ", text)


TEXTS = dict(texts())


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_that_stop_a_reader_are_gone(phrase):
    found = {name: match[0] for name, text in TEXTS.items() if (match := re.search(phrase, text, re.MULTILINE))}
    assert not found, f"write: {PHRASES[phrase]}"


@pytest.mark.parametrize(
    "text",
    ["bits a position", "Bits a\nposition", "64 images a second", '"""Of a run."""', "# Images in\n", "the colour"],
)
def test_the_phrases_are_found(text):
    flat = text + "\0" + re.sub(r"\s*\n\s*(# )?", " ", text)
    assert any(re.search(phrase, flat, re.MULTILINE) for phrase in PHRASES)
