"""The page on sweeps of all shapes."""

import html
import html.parser
import json
import re

import pytest

from bench.report import page
from bench.sweep.results import Results, ResultsError
from tests.unit.bench.report.sample import sample


class Reader(html.parser.HTMLParser):
    """What a page holds, and whether its tags are closed in order."""

    VOID = ("meta", "input")

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
        "Throughput", "Latency", "Scaling", "Ratio to the reference", "All rows", "How it was measured"
    ]  # fmt: skip
    assert len(found.figures) == 2 + 1 + 2 + 1
    assert found.links == []
    assert found.scripts == 2  # plotly's, and the page's own
    own = [(page.HERE / name).read_text() for name in ("page.css", "page.js")]
    assert not re.search(r"https?:|url\(|@import|fetch\(", "".join(own))


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
        {"shards": (1, 2, 4), "workers": (1, 2, 4), "ways": ("shm", "ray"), "nodes": "abc"},
    ],
    ids=str,
)
def test_every_sweep_has_a_page(shape, monkeypatch):
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "")
    result = sample(**shape)
    found = read(result)
    assert ("Ratio to the reference" in found.headings) == any(
        row["to_reference"] is not None for row in result.rows if row["subject"] == "fastps"
    )
    assert ("Nodes" in found.headings) == ("nodes" in shape)
    assert all(figure["data"] for figure in found.figures)


def test_every_choice_shows_traces_of_its_own_and_the_first_is_shown():
    text = page.page(sample())
    for select, figure in zip(re.findall(r"<select>(.*?)</select>", text), [f for f in read(sample()).figures
                              if any("meta" in trace for trace in f["data"])], strict=True):  # fmt: skip
        choices = re.findall(r"<option>(.*?)</option>", select)
        chosen = {trace["meta"] for trace in figure["data"] if "meta" in trace}
        assert chosen == set(choices)
        assert {t["meta"] for t in figure["data"] if "meta" in t and t.get("visible", True)} == {choices[0]}


def test_settings_of_several_placements_rules_and_operations_in_one_file_have_a_page():
    first, second = sample(workers=(2,)), sample(ops=("push_pull",), sizes=(8,))
    others = [{**row, "placement": "remote", "rule": "adam"} for row in second.rows]
    found = read(Results(first.rows + others, first.about))
    assert "Throughput" in found.headings
    assert sum("remote" in cell for cell in found.cells) == len(others)


@pytest.mark.parametrize(("shape", "told"), [
    ({"workers": (1,)}, "Over workers: not measured; sweep with several --workers."),
    ({"shards": (1,)}, "Over shards: not measured; sweep with several --shards."),
])  # fmt: skip
def test_what_was_not_swept_is_said(shape, told):
    assert told in page.page(sample(**shape))


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", "<!--<script>", '<a href="http://a.b">', "</script>"])
def test_what_comes_from_a_file_is_text(evil):
    result = sample()
    result.about["machine"]["processor"]["model"] = evil
    result.about["options"] = {evil: evil}
    result.about["commit"] = {"id": evil, "dirty": True}
    rows = [{**row, "rule": evil, "placement": evil} for row in result.rows]
    rows += [{**row, "subject": evil, "rule": evil + "2", "placement": evil} for row in result.rows]
    text = page.page(Results(rows, result.about))
    plain = page.page(Results(sample().rows, sample().about))
    assert text.count(evil) == plain.count(evil)  # plotly's script has some
    assert html.escape(evil) in text
    found = Reader(text)
    assert (found.links, found.scripts) == ([], 2)
    drawn = json.dumps(found.figures)
    assert "<script" not in drawn
    assert "<a href" not in drawn


def test_a_result_that_knows_less_of_the_machine_says_so():
    result = sample()
    del result.about["machine"]["scheduling"]["waiting_share"]
    result.about["machine"]["scheduling"]["ray_worker_niceness"] = 15
    text = page.page(result)
    assert re.search("Not at its best here: .*Ray's workers", html.unescape(text))  # what it knows it tells
    assert "an older fastps, without waiting share" in text


@pytest.mark.parametrize("part", sample(sizes=(80,)).about["machine"])
def test_any_fact_of_the_machine_may_be_missing(part, monkeypatch):
    monkeypatch.setattr(page, "get_plotlyjs", lambda: "")  # megabytes, and the same on every page
    for fact in sample(sizes=(80,)).about["machine"][part]:
        result = sample(sizes=(80,), workers=(1,), ops=("pull",), peers=())
        del result.about["machine"][part][fact]
        assert read(result).headings[-1] == "How it was measured"
    del result.about["machine"][part]
    assert read(result).headings[-1] == "How it was measured"


def test_a_size_stays_with_its_unit():
    text = page.page(sample())
    assert "(80\u00a0B) to 8.00 [8.00, 8.00] (80\u00a0KB)" in text


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
