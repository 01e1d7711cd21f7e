"""Charts: what a reader, the style sheet and the page's filter find in them, and round ticks."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest

from adept.tables import plots
from adept.tables.svg import Group, inline_svg

CHART = plots.Chart(
    [
        plots.Mark("line", 5, [(10, 50.0), (20, 60.0)], name="adept, seed 1", attributes={"method": "|adept|"}),
        plots.Mark("dots", 5, [(10, 50.0), (20, 60.0)], titles=["first <", "last"], attributes={"method": "|adept|"}),
        plots.Mark("hollow", plots.PAPER_ONLY, [(15, 55.0)], titles=["only once"]),
        plots.Mark("level", 0, [(0, 52.0)], name="untrained"),
    ],
    "step",
    "validation",
    "what it shows",
)  # fmt: skip


def test_a_chart_leaves_the_paint_to_the_style_sheet_and_text_is_text():
    drawing = ElementTree.fromstring(plots.chart_svg(CHART, "one"))
    assert drawing.attrib == {
        "role": "img",
        "aria-label": "what it shows",
        "viewBox": f"0 0 {plots.WIDTH} {plots.HEIGHT}",
    }
    assert {element.tag for element in drawing.iter()} == {"svg", "defs", "g", "path", "use", "text", "title"}
    painted = {"style", "fill", "stroke", "stroke-width", "clip-path", "font-family"}
    assert not [element.attrib for element in drawing.iter() if painted & set(element.keys())]
    assert {"step", "validation", "50", "60", "10", "20"} <= {text.text for text in drawing.iter("text")}
    classes = [group.get("class") for group in drawing.iter("g")]
    assert {"grid", "axis", "tick", "label"} <= set(classes)
    assert classes[-4:] == ["line s5", "dots s5", "hollow quoted", "level s0"]


def test_a_chart_tells_its_series_to_the_filter_and_its_points_to_the_pointer():
    line, dots, hollow, level = list(ElementTree.fromstring(plots.chart_svg(CHART, "one")).iter("g"))[-4:]
    assert line.get("data-method") == dots.get("data-method") == "|adept|" and "data-method" not in level.attrib
    assert [title.text for title in line.findall("title")] == ["adept, seed 1"]
    assert [use.findtext("title") for use in dots.findall("use")] == ["first <", "last"]
    assert hollow.findtext("path/title") == "only once" and level.findtext("title") == "untrained"


def test_a_chart_has_the_same_bytes_each_time_and_other_ids_than_every_other():
    first, second = plots.chart_svg(CHART, "one"), plots.chart_svg(CHART, "two")
    assert first == plots.chart_svg(CHART, "one")
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, second)]
    assert len(ids[0]) == len(ids[1]) == 1 and ids[0].isdisjoint(ids[1])


def test_a_chart_does_not_depend_on_the_users_matplotlib_settings():
    drawn = plots.chart_svg(CHART, "one")
    with matplotlib.rc_context(
        {"svg.fonttype": "path", "axes.spines.bottom": False, "font.size": 30, "axes.xmargin": 0.4}
    ):
        assert plots.chart_svg(CHART, "one") == drawn


def test_later_series_repeat_colours_with_dashes():
    assert [plots.series_class(number) for number in (0, 7, 8, plots.PAPER_ONLY)] == ["s0", "s7", "s0 again", "quoted"]
    assert 'class="line s0 again"' in plots.swatch_svg(8) and " id=" not in plots.swatch_svg(8)


def test_a_symbol_needs_a_title_for_each_point():
    source = (
        '<svg viewBox="0 0 1 1"><g id="a"><defs><path id="m" d="M 0 0"/></defs><use href="#m" x="0" y="0"/></g></svg>'
    )
    with pytest.raises(ValueError, match="zip"):
        inline_svg(source, {"a": Group("dots", symbol_titles=["one", "two"])}, {})


@pytest.mark.parametrize(
    ("values", "options", "ticks"),
    [
        ([0, 30_000], {}, [0, 10_000, 20_000, 30_000]),
        ([49.2, 51.0], {"min_span": 2}, [49, 50, 51]),
        ([70, 70], {"min_span": 2}, [69, 70, 71]),
        ([1e4, 2e8], {"log": True, "min_span": 1}, [1e4, 1e5, 1e6, 1e7, 1e8]),
        ([1e-5, 1e-4], {"log": True, "min_span": 1}, [1e-5, 2e-5, 5e-5, 1e-4]),
        ([0.1, 0.27], {"low": 0}, [0, 0.1, 0.2]),
        ([5, 5], {}, [4, 6]),
    ],
)
def test_ticks_are_round_and_inside(values, options, ticks):
    low, high = plots.limits(values, **options)
    assert plots.round_ticks(low, high, 4, log=options.get("log", False)) == pytest.approx(ticks)
    assert all(low <= value <= high for value in [*values, *ticks])


@pytest.mark.parametrize(
    ("value", "label"),
    [(76051, "76.1k"), (2e8, "200M"), (1e-4, "1e-4"), (0.3, "0.3"), (-5, "−5"), (0, "0"), (2.5e-5, "2.5e-5")],
)
def test_ticks_are_short(value, label):
    assert plots.tick_label(value) == label


def test_learning_curves_are_written_as_a_picture(tmp_path):
    panels = [
        plots.CurvePanel(
            "rte",
            "validation accuracy (%)",
            [
                plots.Curve(0, "pt", 0, "seed 42", [(10, 50.0), (20, 60.0)]),
                plots.Curve(0, "pt", 1, "seed 43", [(10, 51.0), (20, 61.0)]),
                plots.Curve(10, "zero_shot", 0, "", [(10, 55.0)]),
                plots.Curve(2, "never", 0, "", []),
            ],
        )
    ]
    entries = plots.legend_entries(panels * 2)
    assert [entry.get_label() for entry in entries] == ["pt", "zero_shot", "seed 42", "seed 43"]
    assert entries[0].get_color() == entries[1].get_color() and entries[0].get_marker() != entries[1].get_marker()
    assert entries[2].get_linestyle() != entries[3].get_linestyle()
    plots.save_learning_curves(tmp_path / "folder" / "curves.png", panels)
    assert (tmp_path / "folder" / "curves.png").read_bytes().startswith(b"\x89PNG")
