"""Figures, goals and the table, on figures that were once measured."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, Figures, medians, parse
from benchmarks.goals import CLUSTER, STORE, AtMost, AtMostTimes, Goal, Times
from benchmarks.page import replace_section
from benchmarks.table import table

MEASURED = [
    Figure("holdfast", "put_400mb", 18.2, "GB/s"),
    Figure("holdfast", "put_400mb_first", 1.1, "GB/s"),
    Figure("holdfast", "get_400mb", 0.09, "ms"),
    Figure("holdfast", "put_200kb", 7000.0, "objects/s"),
    Figure("floor", "put_400mb_2_threads", 24.7, "GB/s"),
    Figure("plasma", "get_400mb", 0.371, "ms"),
    Figure("plasma", "put_200kb", 2819.6, "objects/s"),
    Figure("ray", "put_400mb", 13.5, "GB/s"),
    Figure("ray", "put_400mb_first", 1.4, "GB/s"),
    Figure("ray", "get_400mb", 0.4665, "ms"),
    Figure("ray", "put_200kb", 2634.6, "objects/s"),
]


def judged(metric: str, side: str) -> list[str]:
    (goal,) = (goal for goal in STORE if goal.metric == metric)
    return [str(condition.judge(metric, Figures(MEASURED))) for condition in getattr(goal, side)]


def test_a_figure_is_read_from_the_line_it_prints():
    figure = Figure("ray", "put_8kb", 2765.4254, "objects/s", (2700.5, 2765.4254))
    assert parse(figure.to_json()) == figure


@pytest.mark.parametrize(
    "line", ["", "round 1 of 3", "12", "[]", "{}", '{"system": "ray"}', '{"system": 1, "value": "x"}']
)
def test_other_lines_are_no_figures(line):
    assert parse(line) is None


def test_the_median_of_rounds_is_taken_for_each_system_and_metric():
    rounds = [
        Figure(system, "put_8kb", value, "objects/s") for system, value in [("a", 3), ("b", 9), ("a", 1), ("a", 2)]
    ]
    assert medians(rounds) == [
        Figure("a", "put_8kb", 2, "objects/s", (3, 1, 2)),
        Figure("b", "put_8kb", 9, "objects/s", (9,)),
    ]


def test_the_best_is_the_largest_rate_and_the_shortest_time():
    figures = Figures(MEASURED)
    assert figures.best(("plasma", "ray"), "put_200kb") == Figure("plasma", "put_200kb", 2819.6, "objects/s")
    assert figures.best(("plasma", "ray"), "get_400mb") == Figure("plasma", "get_400mb", 0.371, "ms")
    assert figures.best(("plasma", "ray"), "chain_1k") is None


def test_goals_are_judged_by_ratios_within_the_run():
    assert judged("put_400mb", "must") == ["≥ 1.2 × ray: 1.35, met", "≥ 0.7 × the two-thread floor: 0.74, met"]
    assert judged("put_400mb", "aim") == ["≥ 0.9 × the two-thread floor: 0.74, SHORT"]
    assert judged("put_400mb_first", "must") == ["≥ 5 × ray: 0.79, SHORT"]
    assert judged("put_400mb_first", "aim") == ["≥ 0.95 × warm: 0.06, SHORT"]
    assert judged("put_200kb", "must") == ["≥ 2 × the best peer: 2.48, met"]
    assert judged("put_200kb", "aim") == ["≥ 4 × the best peer: 2.48, SHORT"]


def test_a_peer_whose_median_is_a_cold_one_is_no_measure_of_warm():
    cold_ray = [Figure("ray", "put_400mb", 0.6727, "GB/s"), Figure("ray", "put_400mb_first", 0.6727, "GB/s")]
    figures = Figures([Figure("holdfast", "put_400mb", 14.4749, "GB/s"), *cold_ray])
    (goal,) = (goal for goal in STORE if goal.metric == "put_400mb")
    verdict = goal.must[0].judge("put_400mb", figures)
    assert verdict.met is None
    assert str(verdict) == "≥ 1.2 × ray: 21.52, can't be said: ray wasn't warm"


def test_goals_are_judged_by_limits():
    assert judged("get_400mb", "must") == ["≤ 0.15 ms: met"]
    assert judged("get_400mb", "aim") == ["≤ 0.05 ms: SHORT"]


def test_what_was_not_measured_is_neither_met_nor_short():
    assert judged("put_8kb", "must") == ["≥ 2 × plasma: not measured"]
    assert judged("create_seal_400mb", "must") == ["≤ 0.2: not measured"]


def test_a_table_has_a_row_for_each_metric_that_was_measured():
    goals = [
        Goal("put_400mb", must=(Times(1.2, ("ray",)),)),
        Goal("get_400mb", aim=(AtMost(0.05),)),
        Goal("put_8kb", must=(Times(2, ("plasma",)),)),
    ]
    rows = cells(table(goals, Figures(MEASURED), ["holdfast", "floor", "plasma", "ray"]))
    assert rows[0] == ["metric", "unit", "holdfast", "floor", "plasma", "ray", "must", "aim"]
    assert rows[2:] == [
        ["`put_400mb`", "GB/s", "18.2", "24.7", "", "13.5", "≥ 1.2 × ray: 1.35, met", ""],
        ["`get_400mb`", "ms", "0.0900", "", "0.371", "0.467", "", "≤ 0.05 ms: SHORT"],
    ]


def test_a_table_says_how_many_times_better_than_a_peer_a_figure_is_whichever_way_is_better():
    rows = cells(table([Goal("put_400mb"), Goal("get_400mb")], Figures(MEASURED), ["holdfast"], ["plasma", "ray"]))
    assert rows[0] == ["metric", "unit", "holdfast", "× plasma", "× ray", "must", "aim"]
    assert rows[2:] == [
        ["`put_400mb`", "GB/s", "18.2", "", "1.35", "", ""],
        ["`get_400mb`", "ms", "0.0900", "4.12", "5.18", "", ""],
    ]


def test_a_time_is_judged_by_its_part_of_the_best_peers():
    figures = Figures(MEASURED)
    of_ray = AtMostTimes(1 / 4, ("ray",)).judge("get_400mb", figures)
    assert str(of_ray) == "≤ 0.25 × ray: 0.19, met"
    of_the_best = AtMostTimes(0.2, ("plasma", "ray")).judge("get_400mb", figures)
    assert str(of_the_best) == "≤ 0.2 × the best peer: 0.24, SHORT"
    assert AtMostTimes(1, ("distributed",)).judge("get_400mb", figures).met is None


def test_each_metric_has_one_goal():
    for goals in (STORE, CLUSTER):
        metrics = [goal.metric for goal in goals]
        assert len(metrics) == len(set(metrics))


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_only_what_is_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    begin, end = "<!-- x: made by the benchmark, don't edit -->\n", "<!-- end of x -->\n"
    page.write_text(f"above\n{begin}old\n{end}below\n")
    for _ in range(2):
        replace_section(page, "x", "new")
        assert page.read_text() == f"above\n{begin}\nnew\n\n{end}below\n"


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("by hand\n")
    with pytest.raises(ValueError, match="end of x"):
        replace_section(page, "x", "new")
    assert page.read_text() == "by hand\n"
