"""The report of a benchmark: the same rows and marks in every form, numbers that come back, text that stays text."""

from __future__ import annotations

import copy
import csv
import functools
import io
import json
import operator
import random
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import benchmark_results
import pytest
from benchmark_results import HOSTILE, METRICS, PROTOCOLS
from html_pages import Page
from hypothesis import given
from hypothesis import strategies as st

from recbole_lsvcr.benchmark.report import (
    FILES,
    charts,
    differences,
    html,
    latex,
    markdown,
    quality_charts,
    rows,
    studies,
    study_charts,
    tables,
    words,
    write_report,
)
from recbole_lsvcr.benchmark.report.__main__ import main
from recbole_lsvcr.benchmark.report.figure import shown
from recbole_lsvcr.benchmark.report.read import check
from recbole_lsvcr.benchmark.report.view import Table, marks, percent, probability, score
from recbole_lsvcr.errors import EvaluationError
from recbole_lsvcr.titles import slice_title


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """As read from results.json."""
    return dict(json.loads(json.dumps(benchmark_results.results(portrait=benchmark_results.portrait()))))


@pytest.fixture
def video(results: dict[str, Any]) -> dict[str, Any]:
    """The task of videos, to be changed."""
    return dict(copy.deepcopy(results["tasks"]["video"]))


@pytest.fixture(scope="module")
def page(results: dict[str, Any]) -> str:
    return html.page(results)


def arm_of(task: dict[str, Any], name: str, group: str = "main") -> dict[str, Any]:
    return next(arm for arm in task["arms"] if (arm["name"], arm["group"]) == (name, group))


# ---------------------------------------------------------------------- marks and rows


def slow_marks(values: list[float | None]) -> list[str]:
    found = []
    known = [value for value in values if value is not None]
    for value in values:
        better = {other for other in known if value is not None and other > value}
        found.append("" if value is None or len(known) < 2 else {0: "best", 1: "second"}.get(len(better), ""))
    return found


@given(st.lists(st.none() | st.sampled_from([0.0, 0.1, 0.1 + 1e-15, 0.2, 0.3]) | st.floats(0, 1), max_size=12))
def test_best_and_second_are_those_of_a_slow_search(values: list[float | None]) -> None:
    assert marks(values) == slow_marks(values)


def test_every_column_of_a_main_table_is_marked_by_full_precision(results: dict[str, Any]) -> None:
    for name, task in results["tasks"].items():
        for protocol in PROTOCOLS[name]:
            table = tables.main_table(task, protocol)
            main_arms = [arm for arm in task["arms"] if arm["group"] == "main"]
            assert [row.cells[0].text for row in table.rows] == [arm["name"] for arm in main_arms]
            for place, metric in enumerate([m for m in METRICS if m != "mrr@5"], start=1):
                values = [
                    arm["quality"].get(protocol, {}).get("all", {}).get(metric, {}).get("mean") for arm in main_arms
                ]
                assert [row.cells[place].value for row in table.rows] == values
                assert [row.cells[place].mark for row in table.rows] == slow_marks(values)


def test_arms_that_differ_below_the_digits_shown_are_told_apart(video: dict[str, Any]) -> None:
    first, second = arm_of(video, "LSVCR"), arm_of(video, "MBHT")
    found = [arm["quality"]["available+period"]["all"]["ndcg@10"] for arm in (first, second)]
    found[0]["mean"], found[1]["mean"] = 0.5, 0.5 + 1e-9
    cells = {row.cells[0].text: row.cells[4] for row in tables.main_table(video, "available+period").rows}
    assert cells["MBHT"].mark == "best" and cells["LSVCR"].mark == "second"
    assert cells["MBHT"].text.split()[0] == cells["LSVCR"].text.split()[0] == "0.5000"


def test_the_gain_is_over_the_best_baseline_of_each_column_rules_included(video: dict[str, Any]) -> None:
    metric = arm_of(video, "Newest")["quality"]["available+period"]["all"]["recall@5"]
    metric["mean"] = 0.9
    table = tables.main_table(video, "available+period")
    gains = table.foot[-1]
    own = arm_of(video, "LSVCR")["quality"]["available+period"]["all"]
    assert gains.cells[0].text == "gain of LSVCR over the best baseline"
    assert gains.cells[1].text == percent((own["recall@5"]["mean"] - 0.9) / 0.9)
    assert gains.cells[1].hint == "against Newest"
    base = arm_of(video, HOSTILE)["quality"]["available+period"]["all"]["mrr"]["mean"]
    assert gains.cells[6].text == percent(own["mrr"]["mean"] / base - 1) and gains.cells[6].hint == f"against {HOSTILE}"


def test_a_mean_over_other_instances_is_neither_marked_nor_gained_over(video: dict[str, Any]) -> None:
    fewer = arm_of(video, "MBHT")["quality"]["available+period"]["all"]
    fewer["instances"], fewer["users"] = 20, 3
    for metric in METRICS:
        fewer[metric]["mean"] = 0.9
    table = tables.main_table(video, "available+period")
    cells = {row.cells[0].text: row.cells[4] for row in table.rows}
    assert cells["MBHT"].mark == "" and cells["LSVCR"].mark == "best"
    assert cells["MBHT"].note == "20 instances of 3 users" and cells["LSVCR"].note == ""
    assert "(20 instances of 3 users)" in "\n".join(markdown.lines_of(table))
    assert table.foot[-1].cells[4].hint == f"against {HOSTILE}"
    video["comparisons"] = []
    assert f"the best baseline, {HOSTILE}: NDCG@10" in words.findings(video)[0].text


def test_every_form_says_what_stands_behind_the_plus_and_minus(results: dict[str, Any], page: str) -> None:
    said = "Means over seeds {} their standard deviation; the best bold, the second underlined."
    protocols = sum(len(names) for names in PROTOCOLS.values())
    assert page.count(said.format("±")) == markdown.markdown(results).count(said.format("±")) == protocols
    assert latex.latex(results).count(said.format(r"$\pm$")) == 2


def test_an_arm_without_a_ranking_under_a_protocol_has_its_reason(results: dict[str, Any], page: str) -> None:
    video = results["tasks"]["video"]
    rows_of = {row.cells[0].text: row for row in tables.main_table(video, "all+uniform").rows}
    assert rows_of["Caser"].status == "not ranked under all+uniform" and rows_of["LSVCR"].status == ""
    assert all(row.status for row in rows_of.values() if row.empty)
    assert page.count("not ranked under all+uniform</td>") == 1
    assert "| not ranked under all+uniform |" in markdown.markdown(results)


def test_numbers_are_written_with_care() -> None:
    assert [score(None), score(0.5), score(0.5, 0.01)] == ["–", "0.5000", "0.5000 ± 0.0100"]
    assert [probability(p) for p in (None, 0.0, 0.00099, 0.05, 1.0)] == ["–", "< 0.001", "< 0.001", "0.050", "1.000"]
    assert slice_title("popularity_100-999") == "popularity 100–999" and slice_title("history_50+") == "history 50+"


# ---------------------------------------------------------------------- words


def test_the_summary_says_what_the_numbers_are(video: dict[str, Any]) -> None:
    (found,) = words.findings(video)
    one = next(c for c in video["comparisons"] if c["best"] and c["slice"] == "all")
    assert found.verdict == "ahead" and found.text.startswith(
        f"LSVCR is ahead of the best baseline, {HOSTILE}: NDCG@10"
    )
    assert f"{one['mean']:+.4f} ({100 * one['relative']:+.1f} %; 95 % interval by user" in found.text
    assert (
        f"[{one['low']:+.4f}, {one['high']:+.4f}], p = {one['p_holm']:.3f} after Holm over 12 baselines" in found.text
    )
    assert "); 5,753 instances of 1,123 users, 3 seeds against 3 seeds. Taken apart: " in found.text
    seen = next(c for c in video["comparisons"] if c["best"] and c["slice"] == "seen_items")
    assert f"{seen['mean']:+.4f} [{seen['low']:+.4f}, {seen['high']:+.4f}] on seen videos, " in found.text


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({"low": -0.01}, "unclear", "LSVCR is not shown to be ahead of the best baseline"),
        ({"p_holm": 0.2}, "unclear", "is not shown to be ahead"),
        ({"low": None}, "unclear", "is not shown to be ahead"),
        ({"mean": -0.03, "low": -0.04, "high": -0.02}, "behind", "LSVCR is NOT ahead: it is behind the best baseline"),
    ],
)
def test_what_is_not_ahead_is_said_as_plainly(
    video: dict[str, Any], change: dict[str, Any], verdict: str, said: str
) -> None:
    next(c for c in video["comparisons"] if c["best"] and c["slice"] == "all").update(change)
    (found,) = words.findings(video)
    assert found.verdict == verdict and said in found.text


def test_behind_a_rule_the_best_trained_baseline_is_named_too(video: dict[str, Any]) -> None:
    arm_of(video, "Newest")["quality"]["available+period"]["all"]["ndcg@10"]["mean"] = 0.6
    video["comparisons"] = [one for one in video["comparisons"] if one["baseline"] != "Newest" and not one["best"]]
    (found,) = words.findings(video)
    assert found.verdict == "behind" and "behind the best baseline (a rule), Newest" in found.text
    assert "not compared instance by instance" in found.text
    assert f"Against the best trained baseline, {HOSTILE}" in found.text


def test_equal_means_that_were_not_compared_are_not_behind(video: dict[str, Any]) -> None:
    video["comparisons"] = []
    level = arm_of(video, HOSTILE)["quality"]["available+period"]["all"]["ndcg@10"]["mean"]
    arm_of(video, "LSVCR")["quality"]["available+period"]["all"]["ndcg@10"]["mean"] = level
    (found,) = words.findings(video)
    assert found.verdict == "unclear" and "is not shown to be ahead" in found.text and "+0.0000 (+0.0 %)" in found.text


def test_differences_of_other_groups_are_not_ours_to_the_baselines(video: dict[str, Any]) -> None:
    names = {arm["name"] for arm in video["arms"] if arm["group"] == "main"}
    for table in (differences.main_table(video), differences.slice_table(video), differences.other_table(video)):
        assert table is not None and {row.cells[0].text for row in table.rows} <= names
    main_rows = differences.main_table(video)
    assert main_rows is not None and len(main_rows.rows) == 12 and main_rows.columns[0] == "LSVCR less"
    assert [row.cells[0].note for row in main_rows.rows].count("best baseline") == 1
    assert "each arm averaged over its own seeds (their numbers in the last column)" in main_rows.caption
    assert main_rows.columns[-1] == "seeds" and main_rows.rows[0].cells[-1].text == "3 / 1"


def test_the_best_baseline_is_the_one_that_the_comparisons_say(video: dict[str, Any]) -> None:
    for one in video["comparisons"]:
        one["best"] = one["baseline"] == "MBHT"
    assert "the best baseline, MBHT: NDCG@10" in words.findings(video)[0].text


def test_nothing_ranked_at_all_is_a_table_of_reasons(video: dict[str, Any], tmp_path: Path) -> None:
    for arm in video["arms"]:
        arm |= {"status": "failed", "reason": "no memory", "quality": {}, "curves": [], "alignment": None, "seeds": []}
    empty: dict[str, Any] = {"protocols": [], "metrics": [], "ranked": {}, "slices": [], "comparisons": []}
    video |= {**empty, "primary": {"protocol": None, "metric": "ndcg@10"}}
    write_report({**benchmark_results.one_arm(), "tasks": {"video": video}}, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "### nothing was ranked" in text and text.count("failed: no memory") > 15


def test_without_a_number_of_ours_there_is_no_verdict(video: dict[str, Any]) -> None:
    arm_of(video, "LSVCR").update(status="failed", quality={})
    assert words.findings(video) == [words.Finding("none", "LSVCR has no result (failed).")]
    video["arms"] = [arm for arm in video["arms"] if arm["role"] != "ours"]
    assert "None of our models" in words.findings(video)[0].text


# ---------------------------------------------------------------------- further studies


def test_what_was_tuned_for_another_study_alone_is_shown_and_nothing_twice(
    video: dict[str, Any], results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", str)
    whole = arm_of(video, "LSVCR")
    for arm in video["arms"]:
        if arm["group"] == "cold":  # LSVCR is the arm of the main group again
            arm |= {"trials": whole["trials"], "setting": "main" if arm["name"] == "LSVCR" else arm["name"]}
            arm["model"] = arm["name"].split()[0]
    table = tables.tuning_table(video)
    assert table is not None
    names = [row.cells[0].text for row in table.rows]
    assert names[-3:] == ["LSVCR", "UniSRec", "LSVCR without ids"] and names.count("LSVCR") == 1
    changed = {**results, "tasks": {"video": video}}
    assert "<h3>LSVCR without ids</h3>" in html.page(changed)
    assert "Trials of LSVCR without ids</summary>" in markdown.markdown(changed)


def test_an_ablation_is_compared_with_the_full_model(video: dict[str, Any]) -> None:
    full = arm_of(video, "LSVCR", "ablation")["quality"]["available+period"]["all"]["ndcg@10"]["mean"]
    table = studies.ablation_table(video)
    assert table is not None and table.rows[0].cells[0].text == "LSVCR" and table.rows[0].kind == "ours"
    less = {row.cells[0].text: row.cells[-1] for row in table.rows}
    own = arm_of(video, "w/o SSC", "ablation")["quality"]["available+period"]["all"]["ndcg@10"]["mean"]
    one = next(c for c in video["comparisons"] if (c["arm"], c["slice"]) == ("w/o SSC", "all"))
    assert less["w/o SSC"].value == own - full
    assert less["w/o SSC"].text == f"{own - full:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
    assert less["LSVCR"].text == "–" and less["w/o comment diversification"].value is None
    assert next(row for row in table.rows if "diversification" in row.cells[0].text).status.startswith("failed")


def test_an_interval_stands_beside_the_difference_it_is_of(video: dict[str, Any]) -> None:
    """Also where the instances of some seed are gone, and the difference is not that of the means shown."""
    wanted = {"protocol": "available+period", "metric": "ndcg@10", "slice": "all"}
    for one in video["comparisons"]:
        if all(one[name] == value for name, value in wanted.items()):
            one |= {"mean": -0.0321, "low": -0.04, "high": -0.02, "best": one["baseline"] == "Newest"}
    table = studies.ablation_table(video)
    assert table is not None
    cell = next(row.cells[-1] for row in table.rows if row.cells[0].text == "w/o SSC")
    assert (cell.text, cell.value) == ("-0.0321 [-0.0400, -0.0200]", -0.0321)
    said = words.findings(video)[0].text
    assert "the best baseline (a rule), Newest" in said and said.endswith("): -0.0321 [-0.0400, -0.0200].")


def test_an_ablation_without_the_full_model_in_it_is_compared_with_the_main_one(video: dict[str, Any]) -> None:
    video["arms"] = [arm for arm in video["arms"] if (arm["name"], arm["group"]) != ("LSVCR", "ablation")]
    assert studies.full_model(video) is arm_of(video, "LSVCR")
    video["comparisons"] = []
    assert studies.full_model(video) is arm_of(video, "LSVCR")
    table = studies.ablation_table(video)
    assert table is not None and [row.cells[0].text for row in table.rows][:2] == ["LSVCR", "w/o SSC"]


def test_differences_of_cold_start_and_alignment_steps_are_shown(
    video: dict[str, Any], results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", str)
    example = next(one for one in video["comparisons"] if one["group"] == "ablation")
    for group, arm, baseline in (
        ("cold", "UniSRec", "LSVCR without ids"),
        ("cold", "LSVCR", "LSVCR without ids"),
        ("alignment-steps", "500 steps", "0 steps"),
    ):
        given = {"group": group, "arm": arm, "baseline": baseline, "slice": "unseen_items"}
        video["comparisons"].append({**example, **given, "mean": 0.0123, "low": 0.0101, "high": 0.0145})
    changed = {**results, "tasks": {"video": video}}
    for text in (html.page(changed), markdown.markdown(changed).replace("\\", "")):
        assert "arm less the one compared with" in text and "500 steps less" in text
        assert "UniSRec less LSVCR without ids" in text and text.count("[+0.0101, +0.0145]") == 3


def test_alignment_steps_are_in_order_and_none_is_zero(video: dict[str, Any]) -> None:
    video["arms"].reverse()
    table = studies.steps_table(video)
    assert table is not None and [row.cells[1].value for row in table.rows] == [0, 100, 250, 500, 1000]
    health = studies.health_table(video)
    assert health is not None and "each arm's alignment that of its first seed" in health.caption


def test_one_seed_has_no_error_bars_and_no_deviation_of_zero(video: dict[str, Any]) -> None:
    for visible in (True, False):
        for draw, axis in ((study_charts.steps, "error_y"), (study_charts.cold, "error_x")):
            chart = draw(video)
            assert chart is not None and {trace[axis]["visible"] for trace in chart.data} == {visible}
        for arm in video["arms"]:
            for parts in arm["quality"].values():
                for content in parts.values():
                    content["ndcg@10"]["std"] = None


def test_studies_that_were_not_run_are_not_there(video: dict[str, Any]) -> None:
    video["arms"] = [arm | {"alignment": None, "trials": [], "chosen": {}} for arm in video["arms"]]
    video["arms"] = [arm for arm in video["arms"] if arm["group"] == "main"]
    found = [studies.ablation_table, studies.steps_table, studies.health_table, studies.cold_table, tables.tuning_table]
    assert [make(video) for make in found] == [None] * 5


def test_the_legend_of_learning_curves_begins_with_ours_and_shows_every_arm() -> None:
    chart = charts.curves(benchmark_results.results()["tasks"]["video"])
    assert chart is not None
    named = [trace for trace in chart.data if "legendrank" in trace]
    assert sorted(named, key=operator.itemgetter("legendrank"))[0]["name"] == "LSVCR" != named[0]["name"]
    assert chart.height >= 22 * len(named)


def test_the_forest_draws_intervals_to_their_ends(video: dict[str, Any]) -> None:
    found = [one for one in video["comparisons"] if (one["protocol"], one["metric"]) == ("available+period", "ndcg@10")]
    for one in found:
        if one["slice"] == "all":
            one |= {"mean": -0.01, "low": -0.03, "high": 0.0}  # the upper end is zero, and there is one
        if one["slice"] == "unseen_items":
            one |= {"low": None, "high": None}
    chart = charts.forest(video, "LSVCR")
    assert chart is not None
    bars = {trace["name"].split(" (")[0]: trace["error_x"] for trace in chart.data}
    assert bars["all"]["array"] == [0.01] * 12 and bars["all"]["arrayminus"] == pytest.approx([0.02] * 12)
    assert bars["unseen videos"]["array"] == bars["unseen videos"]["arrayminus"] == [0.0] * 12


# ---------------------------------------------------------------------- CSV


def test_csv_holds_every_number_exactly(results: dict[str, Any]) -> None:
    found: dict[tuple[str, ...], list[float | None]] = {}
    for row in csv.DictReader(io.StringIO(rows.table(results))):
        key = tuple(row[name] for name in rows.COLUMNS[:9])
        assert key not in found
        found[key] = [float(row[name]) if row[name] else None for name in ("value", "instances", "users")]
        assert (row["dataset"], row["synthetic"]) == ("sample <i>&", "True")
    expected = {}
    for task_name, task in results["tasks"].items():
        for arm in task["arms"]:
            for protocol, parts in arm["quality"].items():
                for part, content in parts.items():
                    for metric in METRICS:
                        some = content[metric]
                        for seed, value in {**some["values"], "mean": some["mean"], "std": some["std"]}.items():
                            key = (task_name, arm["group"], arm["name"], arm["model"], arm["setting"])
                            counts = [content["instances"], content["users"]]
                            expected[(*key, protocol, part, metric, seed)] = [value, *counts]
        for protocol, ranked in task["ranked"].items():
            for metric, value in ranked["chance"].items():
                key = (task_name, "chance", "chance", "", "", protocol, "all", metric, "mean")
                expected[key] = [value, ranked["instances"], ranked["users"]]
    assert found == expected


def test_no_name_is_a_formula_of_a_spreadsheet(video: dict[str, Any], results: dict[str, Any]) -> None:
    arm_of(video, "MBHT")["name"] = '=HYPERLINK("http://x")'
    arm_of(video, "DMT")["name"] = "-REG"
    found = list(csv.DictReader(io.StringIO(rows.table({**results, "tasks": {"video": video}}))))
    names = {row["arm"] for row in found}
    assert {'\'=HYPERLINK("http://x")', "'-REG", HOSTILE} <= names
    assert all(text[:1] not in ("=", "+", "-", "@") for row in found for text in row.values())


# ---------------------------------------------------------------------- Markdown


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_tables_have_one_row_per_arm(results: dict[str, Any]) -> None:
    text = markdown.markdown(results)
    assert "<script" not in text and "SYNTHETIC" in text.splitlines()[0]
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({len(cells_of(line)) for line in block}) == 1
    for name, task in results["tasks"].items():
        names = [markdown.escaped(arm["name"]) for arm in task["arms"] if arm["group"] == "main"]
        for protocol in PROTOCOLS[name]:
            start = text.index(f"### {protocol}\n", text.index("## Videos" if name == "video" else "## Comments"))
            block = text[text.index("| ---", start) :].split("\n\n")[0].splitlines()[1:]
            assert [re.sub(r" \((rule|partial|failed|missing)\)$", "", cells_of(line)[0]) for line in block] == [
                *names,
                "chance",
                f"gain of {'LSVCR' if name == 'video' else 'LSVCRComment'} over the best baseline",
            ]
            assert sum("**" in line for line in block) >= 1 and sum("<u>" in line for line in block) >= 1
    assert "out of memory" in text and "w/o SSC" in text and "| 1,000 steps | 1,000 |" in text
    assert "python run_lsvcr.py --config 'my study.yaml' --benchmark --ablation" in text


def test_a_summary_is_html_without_markdown(video: dict[str, Any], results: dict[str, Any]) -> None:
    arm_of(video, "MBHT")["name"] = "MBHT [a_]\n\n<b>*"
    text = markdown.markdown({**results, "tasks": {"video": video}})
    assert "<details><summary>Trials of MBHT [a_] &lt;b&gt;*</summary>\n\n| trial |" in text


@given(st.text(max_size=30))
def test_any_text_is_one_cell_of_markdown(text: str) -> None:
    shown_text = markdown.escaped(text)
    assert len(cells_of(f"| {shown_text} |")) == 1 and "\n" not in shown_text
    assert "<" not in shown_text and len(shown_text.splitlines()) <= 1


# ---------------------------------------------------------------------- LaTeX


def test_latex_is_balanced_and_every_row_has_every_column(results: dict[str, Any]) -> None:
    text = latex.latex(results)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 4
    depth = 0
    bare = re.sub(r"\\[{}\\%&$#_]", "", text.replace(r"\\", ""))
    for letter in bare:
        depth += (letter == "{") - (letter == "}")
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    assert r"\textbf{0." in text and r"\underline{0." in text and r"w/o L\_SR" in text
    assert [line for line in text.splitlines() if "%" in re.sub(r"\\%", "", line)] == [text.splitlines()[0]]
    for tabular in re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", text, re.S):
        for line in tabular[1].splitlines():
            if line.endswith(r" \\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(tabular[0]) - 1


@given(st.text(max_size=30))
def test_any_text_is_latex_without_a_special_letter(text: str) -> None:
    shown_text = latex.escaped(text)
    rest = shown_text
    for command in sorted(latex.CHARACTERS.values(), key=len, reverse=True):
        rest = rest.replace(command, "")
    assert not set(rest) & set('\\{}$&#%_^~<>|"`\n') and all(letter <= "ÿ" for letter in rest)
    assert latex.escaped("-1 a-b -- 50 %") == r"$-$1 a-{}b -{}-{} 50 \%"


# ---------------------------------------------------------------------- HTML


def test_the_page_holds_everything_and_loads_nothing(page: str, results: dict[str, Any]) -> None:
    found = Page(page)
    assert [tag for tag, _ in found.tags if tag in ("script", "img", "link", "iframe", "i")] == ["script"] * 3
    links = [attributes["href"] for _, attributes in found.tags if "href" in attributes]
    ids = [str(attributes["id"]) for _, attributes in found.tags if "id" in attributes]
    assert links and all(link and link[0] == "#" and link[1:] in ids for link in links) and len(ids) == len(set(ids))
    found.assert_nothing_is_loaded()
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    charts, library, draw = found.texts["script"]
    drawn = {attributes["id"] for tag, attributes in found.tags if attributes.get("class") == "chart"}
    assert drawn == {chart["id"] for chart in json.loads(charts)} and len(drawn) > 25
    assert "plotly.js" in library[:200] and "showSendToCloud: false" in draw
    policy = next(attributes for tag, attributes in found.tags if "http-equiv" in attributes)["content"]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'unsafe-inline'")
    assert found.texts["title"] == [f"{results['dataset']} (synthetic) – benchmark"]
    assert any(HOSTILE in text for text in found.texts["th"]) and any("alert(1)" in text for text in found.texts["td"])


def test_the_hostile_name_is_nowhere_markup(page: str) -> None:
    assert HOSTILE not in page and escape(HOSTILE) in page
    charts = page[page.index('id="charts">') :].split("</script>")[0]
    assert "<" not in charts.split(">", 1)[1]
    assert shown("<b>\n&amp;</b>") == "&lt;b&gt; &amp;amp;&lt;/b&gt;"


def test_a_failed_arm_stands_in_the_table_with_its_reason(page: str) -> None:
    row = re.search(r'<tr class="failed"><th[^>]*>GRU4Rec</th>(.*?)</tr>', page)
    assert row is not None and 'colspan="6"' in row[1] and "data-number" not in row[1]
    assert "failed: RuntimeError: out of memory &lt;script&gt;" in row[1]


def test_what_may_be_missing_may_be_missing(tmp_path: Path) -> None:
    write_report(benchmark_results.one_arm(), tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        "there is no baseline to compare it with" in text
        and "synthetic" not in text.split("<main>")[1].split("<script")[0]
    )
    least = benchmark_results.one_arm()
    task = least["tasks"]["video"]
    task["arms"][0] |= {"status": "failed", "reason": None, "quality": {}, "seeds": []}
    write_report({key: least[key] for key in ("format", "dataset", "synthetic", "tasks")}, tmp_path)
    assert "LSVCR has no result (failed)" in (tmp_path / "report.md").read_text(encoding="utf-8")
    task["arms"] = []
    write_report(least, tmp_path)
    write_report({**least, "tasks": {}, "portrait": {"name": "of another version"}}, tmp_path)


def test_numbers_that_are_none_are_no_numbers(video: dict[str, Any], results: dict[str, Any], tmp_path: Path) -> None:
    """NaN and null may stand wherever a number may."""

    def spoil(value: Any, bad: float | None) -> Any:
        if isinstance(value, dict):
            return {key: spoil(one, bad) for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one, bad) for one in value]
        return bad if isinstance(value, float) else value

    for bad in (None, float("nan"), float("inf")):
        write_report({**results, "portrait": None, "tasks": {"video": spoil(video, bad)}}, tmp_path)
        text = (tmp_path / "report.md").read_text(encoding="utf-8")
        assert not re.search(r"\b(nan|inf|None)\b", text.split("## How it was run")[0].split("### Hyper")[0])


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from nodes(item, (*path, key))


def test_whatever_is_changed_is_shown_or_refused(
    video: dict[str, Any], results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report of a results.json that somebody edited: never an error of Python's."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", str)
    rng = random.Random(4)
    names = {"LSVCR", "MBHT", "GRU4Rec", "w/o SSC", "500 steps", "UniSRec"}
    video["arms"] = [arm for arm in video["arms"] if arm["name"] in names]
    for arm in video["arms"]:
        arm["quality"] = {"available+period": arm["quality"].get("available+period", {})}
    video["comparisons"] = [one for one in video["comparisons"] if one["baseline"] == "MBHT"][:5]
    text = json.dumps({**results, "tasks": {"video": video}})
    every = list(nodes(json.loads(text)))
    by_depth = {depth: [path for path in every if len(path) == depth] for depth in range(1, 9)}
    outcomes = []
    for turn in range(60):
        changed = json.loads(text)
        *above, last = rng.choice(by_depth[1 + turn % 8])
        place = functools.reduce(operator.getitem, above, changed)
        place[last] = rng.choice([None, "x", 3, -1.5, [], {}, True, ["x"], {"x": 1}, [None], 10**400])
        try:
            check(changed)
        except EvaluationError:
            outcomes.append("refused")
            continue
        for form in (html.page, markdown.markdown, rows.table, latex.latex):
            form(changed)
        outcomes.append("shown")
    assert outcomes.count("refused") > 10 and outcomes.count("shown") > 10


def test_numbers_out_of_place_are_left_out(
    video: dict[str, Any], results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a form may hold and no benchmark writes: nothing where a protocol stands, times before zero, NaN."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", str)
    own = arm_of(video, "LSVCR")
    own["cost"]["seconds_to_best"] = -3.0
    own["curves"][0]["epochs"][1] = float("nan")
    own["alignment"]["log"][1]["step"] = float("nan")
    video["ranked"]["all+full"] = None
    changed = {**results, "tasks": {"video": video}}
    check(changed)
    assert "LSVCR" in html.page(changed) and "LSVCR" in rows.table(changed)
    chart = quality_charts.cost_chart(video)
    assert chart is not None and not any("LSVCR" in trace["text"] for trace in chart.data)


# ---------------------------------------------------------------------- files and the command


def test_files_appear_whole_or_not_at_all(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> str:
        raise RuntimeError("boom")

    write_report(results, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    monkeypatch.setattr(latex, "latex", fail)
    with pytest.raises(RuntimeError, match="boom"):
        write_report({**results, "dataset": "other"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    write = Path.write_text

    def full(self: Path, content: str, **options: Any) -> int:
        if ".results.tex." in self.name:
            raise OSError(28, "No space left on device")
        return write(self, content, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_report({**results, "dataset": "other"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_left_where_nothing_could_be_made(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> str:
        raise RuntimeError("boom")

    monkeypatch.setattr(latex, "latex", fail)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RuntimeError):
        write_report(results, empty)
    assert not list(empty.iterdir())


def test_the_command_writes_the_report_anew(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main([str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "results.json"])
    assert capsys.readouterr().out.count("wrote ") == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); give the output folder of a benchmark"),
        ("{", "is no JSON"),
        ("[]", "is not of format 1 (found: 'list')"),
        ('{"format": 2}', "is not of format 1 (found: 2)"),
        ('{"format": 1}', "the study has no dataset"),
        ('{"format": 1, "dataset": "x", "synthetic": 1, "tasks": {}}', "synthetic is 1"),
        (
            '{"format": 1, "dataset": "x", "synthetic": true, "tasks": {"video": []}}',
            "tasks.video is [], which it cannot be",
        ),
    ],
)
def test_what_is_no_results_json_is_one_message(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main([str(tmp_path)]) == 2
    shown_text = capsys.readouterr().err
    assert said in shown_text and shown_text.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_part_that_is_missing_is_named(video: dict[str, Any], results: dict[str, Any]) -> None:
    del video["arms"][3]["status"]
    with pytest.raises(EvaluationError, match=r"tasks\.video\.arms\[3\] has no status"):
        check({**results, "tasks": {"video": video}})


def test_tables_of_all_forms_have_equal_rows(results: dict[str, Any]) -> None:
    table = tables.main_table(results["tasks"]["video"], "available+period")
    assert isinstance(table, Table)
    assert {len(row.cells) for row in (*table.rows, *table.foot)} == {len(table.columns)}
