"""The scripts for a machine with a GPU, tried without one."""

from experiments.gpu import report

from hybridvq import load_tokenizer
from hybridvq.documents import read_json


def test_the_reports_run_stops_when_its_time_is_up_and_goes_on(tmp_path):
    words = ["--data", "photos", "--out", str(tmp_path), "--width", "4", "--steps", "3", "--device", "cpu"]
    assert report.main([*words, "--minutes", "1e-5"]) == report.STOPPED
    assert not (tmp_path / "result.json").exists()
    assert report.main(words) == 0
    result = read_json(tmp_path / "result.json")
    assert [run["recipe"] for run in result["runs"]] == list(report.RECIPES)
    assert [entry["bits"] for entry in result["runs"][0]["gains"]["rounded"]][-1] == 0
    for recipe in report.RECIPES:
        assert load_tokenizer(tmp_path / f"{recipe}-half").dim == 4
