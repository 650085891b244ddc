"""Options of `fastps demo` that are checked before anything runs."""

import pytest

from fastps import cli


@pytest.mark.parametrize("name", ["loss.csv", "loss", "loss.parquet", "page.html.gz"])
def test_a_plot_goes_to_no_file_of_another_kind(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert cli.main(["demo", "--consistency", "all", "--plot", str(tmp_path / name)]) == 2
    assert "expected a file that ends in .html" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
