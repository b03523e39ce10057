"""Tables of the commands: a name is whole in a pipe, and can be put together from its lines in a narrow terminal."""

import io

import pytest
from rich.console import Console
from test_converter_preference import chain

from subbyte.console import console
from subbyte.converter import convert
from subbyte.converter.report import print_layers
from subbyte.keyword_spotting.evaluate import Report, report_table
from subbyte.keyword_spotting.intervals import Interval

NAME = "models/of/the/thirtieth/try/" + "keyword_spotting_" * 8 + "packed.tflite"
ANY = Interval(0.5, 0.4, 0.6)


def test_a_name_is_whole_in_a_pipe(capsys: pytest.CaptureFixture) -> None:
    console().print(report_table([(NAME, Report(ANY, (ANY, ANY), 615, 36))], "test split"))
    out = capsys.readouterr().out
    assert NAME in out
    assert "50.0 % [40.0, 60.0]" in out
    assert max(map(len, out.splitlines())) < len(NAME) + 150  # no wider than the table


def test_nothing_is_cut_in_a_narrow_terminal() -> None:
    for width in (60, 80, 120):
        file = io.StringIO()
        terminal = Console(file=file, width=width, force_terminal=True, color_system=None)
        terminal.print(report_table([(NAME, Report(ANY, (ANY, ANY), 615, 36))], "test split"))
        print_layers(terminal, convert(chain(64, 64), io="int8"))
        assert "…" not in file.getvalue()
