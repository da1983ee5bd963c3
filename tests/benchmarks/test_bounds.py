"""The benchmark of how long others wait while one client asks much: that it runs, and sees all that it is to see."""

from __future__ import annotations

from benchmarks import bounds


def test_a_short_run(monkeypatch, capsys):
    monkeypatch.setattr(bounds, "_QUIET_SECONDS", 0.3)
    assert bounds.main(["--results", "500", "--questions", "40", "--lost", "2000"]) == 0
    table = capsys.readouterr().out
    assert "is silent" in table
    assert "asks 40 times where 500 results are" in table
    assert "asks 4 times where everything is" in table
