"""How the words of a command line may be spelled, and what is said of misspelled ones, soon."""

import re
import subprocess
import sys

import pytest

from hybridvq.cli import COMMANDS, build_parser, main
from hybridvq.commands.parser import underscore
from hybridvq.errors import ConfigError, did_you_mean
from hybridvq.priors import build_prior
from hybridvq.quantizers import build_quantizer


def parse(line):
    words = [underscore(word) for word in line.split()]
    return build_parser(words).parse_args(words)[words[0]]


@pytest.mark.parametrize("command", ["train", "train-prior photos"])
@pytest.mark.parametrize("dots", ["", "training."])
def test_steps_and_batch_size_have_short_names(command, dots):
    schedule = parse(f"{command} --{dots}steps 7 --{dots}batch-size=3").training
    assert (schedule.steps, schedule.batch_size) == (7, 3)


def test_steps_of_the_other_commands():
    assert parse("compare --recipes vector --steps 7 --batch-size 3").batch_size == 3
    assert parse("fit-codec photos --steps 7").steps == 7
    assert parse("evaluate photos --quantization-steps [0.5,2]").quantization_steps == [0.5, 2]


def test_one_setting_by_two_names(complaint):
    assert parse("train --steps 7 --training.steps 7").training.steps == 7
    said = "--batch-size 3 and --training.batch-size 4 set the same; give one of them"
    assert said in complaint("train", "--training.batch_size=4", "--batch_size", 3)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_spells_options_with_dashes(command, capsys):
    with pytest.raises(SystemExit):
        main([*([command] if command else []), "--help"])
    assert not re.findall(r"--[\w.-]*_[\w.]*", capsys.readouterr().out)


def test_either_spelling_is_taken():
    assert parse("train --skip_unreadable --eval-images 3 --num_nodes 2") == parse(
        "train --skip-unreadable --eval_images=3 --num-nodes 2"
    )


OF_A_MODEL = ["evaluate", "reconstruct", "tokenize", "export", "train-prior", "fit-codec", "compress", "decompress"]


@pytest.mark.parametrize("command", [*OF_A_MODEL, "app"])
def test_the_model_is_the_first_argument(command):
    files = " a b" if command in ("reconstruct", "compress", "decompress") else ""
    assert parse(f"{command} M{files}").as_dict() == parse(f"{command}{files} --model M").as_dict()
    assert parse(f"{command}{files} --model=M").model == "M"


def test_the_page_has_a_model_of_its_own():
    assert parse("app").model == "photos-gain-shape"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("info", "models", "recipes", "app")])
def test_out_has_a_letter(command):
    words = {"compare": " --recipes vector", "train": "", "sample": " prior"}.get(command, " M")
    words += " a" if command in ("reconstruct", "compress", "decompress") else ""
    if command != "evaluate":
        assert parse(f"{command}{words} -o x").out == parse(f"{command}{words} --out x").out == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "there is no command 'trian' (did you mean train?)"),
        ("fit_codec", "(did you mean fit-codec?)"),
        ("train --recpie vector", "there is no option --recpie vector (did you mean --recipe?)"),
        ("train --skip-unraedable", "(did you mean --skip-unreadable?)"),
        ("train --training.stpes 3", "(did you mean --training.steps?)"),
        ("train --recipe vectr", "there is no recipe 'vectr' (did you mean vector?)"),
        ("train --model.quantizer gain-shap", "(did you mean gain-shape?)"),
        ("train --model.network foto", "(did you mean photo?)"),
        ("train --model.options.codebok_size 3", "(did you mean codebook_size?)"),
        ("train --training.loss charbonier", "(did you mean charbonnier?)"),
        ("train --training.logger tensorbord", "(did you mean tensorboard?)"),
        ("evaluate phtos", "there is no model folder phtos (did you mean photos?)"),
        ("sample cifar10-priro", "there is no prior folder cifar10-priro (did you mean cifar10-prior?)"),
        ("evaluate a b", "there is no place for b"),
        ("compress", "the following arguments are required: model, images; give `hybridvq compress MODEL IMAGES`; see"),
        ("train --training.step", "see `hybridvq train --help`"),
    ],
)
def test_what_was_meant(complaint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    said = complaint(*words.split())
    assert message in said
    assert "compare" not in said
    assert not list(tmp_path.iterdir())


def test_words_before_any_command_are_told_as_they_are(complaint):
    assert "'1.5'" in complaint("--speed", "1.5")


def test_what_was_meant_by_a_key(complaint, tmp_path):
    (tmp_path / "plan.yaml").write_text("stpes: 3\n", encoding="utf-8")
    assert "there is no key stpes (did you mean steps?)" in complaint("compare", "--config", tmp_path / "plan.yaml")
    (tmp_path / "mine.yaml").write_text("trianing: {steps: 3}\n", encoding="utf-8")
    said = complaint("train", "--recipe", tmp_path / "mine.yaml")
    assert "there is no key trianing.steps (did you mean training.steps?)" in said
    (tmp_path / "mine.yaml").write_text("model: {dmi: 3}\n", encoding="utf-8")
    assert "no key model.dmi (did you mean model.dim?)" in complaint("train", "--recipe", tmp_path / "mine.yaml")


def test_what_was_meant_by_a_prior():
    space = build_quantizer(4, "vector", {"codebook_size": 4}).space()
    for name, options, meant in (("transfromer", {}, "transformer"), ("transformer", {"wdith": 8}, "width")):
        with pytest.raises(ConfigError, match=rf"\(did you mean {meant}\?\)"):
            build_prior(name, space, (2, 2), options=options)


def test_nothing_is_meant_by_anything():
    assert did_you_mean("--nope", ["--group", "--seed", "--model.dim"]) == ""
    assert did_you_mean(3, ["--group"]) == "", "a key of a YAML file may be a number"


SOON = """
import sys
from pathlib import Path
from hybridvq.cli import main
Path("file").write_text("")
(Path("run") / "checkpoints").mkdir(parents=True)
(Path("run") / "checkpoints" / "last.ckpt").write_text("")
for line in sys.stdin.read().splitlines():
    assert main(line.split()) == 2, line
print(*sorted({"torch", "lightning", "datasets", "gradio"} & sys.modules.keys()))
"""
MISSING = {
    "train --recipe nope": "there is no recipe 'nope'",
    "train --data /no/where": "'/no/where' is not a data set",
    "train --out file": "--out is file, which is a file",
    "train --out run": "run holds a run already; add --resume",
    "train-prior photos-vq --out run": "run holds a run already; add --resume",
    "train --stream --data /no/where": "'/no/where' is not a data set",
    "compare --recipes vector nope": "there is no recipe 'nope'",
    "compare --recipes vector --data /no/where": "'/no/where' is not a data set",
    "compare --config /no/plan.yaml": "/no/plan.yaml: it cannot be read",
    "reconstruct run file": "run holds a run that was interrupted, and no model yet; the command that began it",
    "evaluate photos --data /no/where": "'/no/where' is not a data set",
    "reconstruct phtos file": "there is no model folder phtos",
    "reconstruct photos /no/a.png": "there is no file or folder /no/a.png",
    "tokenize phtos": "there is no model folder phtos",
    "tokenize photos --data /no/where": "'/no/where' is not a data set",
    "export phtos": "there is no model folder phtos",
    "export photos --out file": "--out is file, which is a file",
    "train-prior phtos": "there is no model folder phtos",
    "train-prior photos --data /no/where": "'/no/where' is not a data set",
    "train-prior photos --tokens /no/where": "there is no folder /no/where",
    "sample nope": "there is no prior folder nope",
    "sample cifar10-prior --labels cta": "cifar10-prior knows no class 'cta' (did you mean cat?)",
    "sample cifar10-prior --complete /no/a.png": "there is no file or folder /no/a.png",
    "sample cifar10-prior --model phtos": "there is no model folder phtos",
    "fit-codec phtos": "there is no model folder phtos",
    "fit-codec photos": "photos has tables that others read too",
    "compress phtos file": "there is no model folder phtos",
    "compress photos /no/a.png": "there is no file or folder /no/a.png",
    "decompress phtos file": "there is no model folder phtos",
    "decompress photos /no/a.hvq": "there is no file or folder /no/a.hvq",
    "info /no/a.hvq": "/no/a.hvq cannot be read",
    "app phtos": "there is no model folder phtos",
    "app --prior nope": "there is no prior folder nope",
}


def test_what_is_missing_is_told_before_torch_loads(tmp_path):
    """All in one process, which loads what the slowest of the sentences needs."""
    done = subprocess.run(
        [sys.executable, "-c", SOON],
        input="\n".join(MISSING),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "\n", done.stdout + done.stderr
    for said, wanted in zip(done.stderr.splitlines(), MISSING.values(), strict=True):
        assert wanted in said
