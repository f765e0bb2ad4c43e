"""What a page's generated parts are, and that they are written where they are out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments import reference_pages, settings_table
from deployments.reference_pages import PART, PARTS, pages, updated


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.name)
def test_generated_parts_are_what_the_code_says(page: Path) -> None:
    text = page.read_text()
    assert updated(text) == text, "run: make docs"


def test_every_part_that_can_be_generated_stands_in_a_page() -> None:
    found = {part for page in pages() for _, part, *_ in PART.findall(page.read_text())}
    assert found == set(PARTS)


def test_every_setting_says_what_it_means() -> None:
    assert [variable for variable, _, meaning in settings_table.rows() if len(meaning) < 15] == []


def test_a_page_that_is_out_of_date_is_written_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "a.md"
    page.parent.mkdir()
    page.write_text("# A\n\n<!-- generated: contracts -->\n\n- old\n\n<!-- generated: end -->\n\nwords\n")
    monkeypatch.setattr(reference_pages, "DOCS", page.parent)

    reference_pages.main()

    assert capsys.readouterr().out == "written: docs/a.md\n"
    assert "- old" not in page.read_text()
    assert page.read_text().endswith("\n\n<!-- generated: end -->\n\nwords\n")
    reference_pages.main()
    assert capsys.readouterr().out == ""


def test_a_part_that_nothing_makes_is_an_error() -> None:
    with pytest.raises(KeyError):
        updated("<!-- generated: nothing -->\n\n<!-- generated: end -->\n")
