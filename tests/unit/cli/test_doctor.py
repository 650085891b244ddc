"""What `fastps doctor` prints."""

import json

from fastps import cli
from fastps.machine import facts as machine


def test_the_doctor_says_the_same_as_json(monkeypatch, capsys):
    facts = machine.facts(steal_seconds=0)
    facts["scheduling"]["niceness"] = 19
    monkeypatch.setattr(machine, "facts", lambda: facts)
    assert cli.main(["doctor", "--json"]) == 1
    out, errors = capsys.readouterr()
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert set(found["niceness"]) == {"name", "verdict", "found", "why", "command"}
    assert (found["niceness"]["verdict"], found["niceness"]["found"]) == ("poor", "19")
    assert errors.startswith("fastps doctor: poor: ")
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert all(name in out for name in found)
