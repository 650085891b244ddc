"""The page on sweeps of all shapes."""

import html.parser
import json
import re

import pytest

from bench.report import page
from bench.sweep.results import Results, ResultsError
from tests.unit.bench.report.sample import sample


class Reader(html.parser.HTMLParser):
    """What a page holds, and whether its tags are closed in order."""

    VOID = ("meta", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.figures, self.links, self.scripts, self.cells = [], [], [], [], 0, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found[name] for name in ("src", "href") if name in found]
        self.scripts += tag == "script" and "type" not in found
        if tag not in self.VOID:
            self.open.append((tag, found))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, found = self.open[-1] if self.open else ("", {})
        if tag == "h2":
            self.headings.append(data)
        if tag == "script" and found.get("type") == "application/json":
            self.figures.append(json.loads(data))
        if tag == "td":
            self.cells.append(data)


def read(result):
    return Reader(page.page(result))


def test_a_page_has_all_sections_and_needs_no_network():
    found = read(sample(shards=(1, 2)))
    assert found.headings == [
        "Throughput", "Latency", "Scaling", "Ratio to the roof", "All rows", "How it was measured"
    ]  # fmt: skip
    assert len(found.figures) == 2 + 1 + 2 + 1
    assert found.links == []
    assert found.scripts == 2  # plotly's, and the page's own


@pytest.mark.parametrize(
    "shape",
    [
        {"sizes": (80,)},
        {"ops": ("push_pull",)},
        {"workers": (1,)},
        {"workers": (2, 4)},
        {"peers": ()},
        {"peers": ("ray_actor",)},
        {"peers": ("memcpy",), "ops": ("push",)},
        {"ways": ("ray",)},
        {"ways": ("shm", "ray")},
        {"sizes": (4, 80, 8_000, 80_000, 800_000, 8_000_000, 400_000_000)},
        {"nodes": "ab"},
    ],
    ids=str,
)
def test_every_sweep_has_a_page(shape):
    result = sample(**shape)
    found = read(result)
    assert ("Ratio to the roof" in found.headings) == any(
        row["to_roof"] is not None for row in result.rows if row["subject"] == "fastps"
    )
    assert ("Nodes" in found.headings) == (shape.get("nodes") == "ab")
    assert all(figure["data"] for figure in found.figures)


def test_every_choice_shows_traces_of_its_own_and_the_first_is_shown():
    text = page.page(sample())
    for select, figure in zip(re.findall(r"<select>(.*?)</select>", text), [f for f in read(sample()).figures
                              if any("meta" in trace for trace in f["data"])], strict=True):  # fmt: skip
        choices = re.findall(r"<option>(.*?)</option>", select)
        chosen = {trace["meta"] for trace in figure["data"] if "meta" in trace}
        assert chosen == set(choices)
        assert {t["meta"] for t in figure["data"] if "meta" in t and t.get("visible", True)} == {choices[0]}


def test_what_comes_from_a_file_is_text():
    result = sample()
    evil = "<script>alert(1)</script>"
    result.about["machine"]["processor"]["model"] = evil
    result.about["options"] = {evil: evil}
    rows = [{**row, "rule": evil} for row in result.rows]
    text = page.page(Results(rows, result.about))
    assert evil not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_result_that_knows_less_of_the_machine_has_a_page_without_warnings():
    result = sample()
    del result.about["machine"]["scheduling"]["waiting_share"]
    assert "Not at its best" not in page.page(result)


def test_a_poor_machine_is_told():
    result = sample()
    result.about["machine"]["scheduling"]["niceness"] = 19
    text = page.page(result)
    assert re.search("Not at its best here: .*niceness", text)


def test_a_result_without_fastps_is_refused(tmp_path):
    result = sample(peers=())
    with pytest.raises(ResultsError, match="no row of fastps"):
        page.write(Results([], result.about), tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []
