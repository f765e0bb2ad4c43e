"""YAML as its version 1.2 reads it; what is no plain value is refused with its line."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deployments.client.yaml_values import InvalidYaml, read_yaml


def test_values_are_what_a_reader_takes_them_for() -> None:
    """PyYAML alone reads 1e-6 as a text, no as false, 010 as eight and 1:30 as ninety."""
    text = "a: 1e-6\nb: no\nc: 010\nd: 1:30\ne: [x, 2, 3.5]\nf: {g: .5}\nh:\ni: '1'\nj: true\nk: -3\nl: ~\n"
    assert read_yaml(text, "f").value == {
        "a": 1e-6,
        "b": "no",
        "c": 10,
        "d": "1:30",
        "e": ["x", 2, 3.5],
        "f": {"g": 0.5},
        "h": None,
        "i": "1",
        "j": True,
        "k": -3,
        "l": None,
    }


def test_every_value_has_its_line() -> None:
    lines = read_yaml("a: 1\n\nb:\n  c: 2\n  d:\n    - 3\n    - 4\n", "f").lines
    assert (lines["a"], lines["b.c"], lines["b.d.1"]) == (1, 4, 7)


def test_aliases_are_read() -> None:
    assert read_yaml("a: &x [1]\nb: *x", "f").value == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f, line 3: a stands here twice; the first is in line 1"),
        ("a: [1, 2", "f, line 1: this is not YAML"),
        ("a:\n\t- b", "f, line 2: this is not YAML: found character '\\t' that cannot start any token. Indent with"),
        ("a: !!python/object/apply:os.system [x]", "line 1: the tag python/object/apply:os.system is not read here"),
        ("a: &x [*x]", "too many values, or too deep ones"),
        ("--- 1\n--- 2", "line 2: this is not YAML"),
        ("[1]: 2", "line 1: the name of a field is a plain text"),
        ("a: .nan", "line 1: .nan is no number"),
        ("a: 1e999", "line 1: 1e999 is too large a number"),
        ("a: " + "9" * 5_000, "line 1: 999999999999... is too large a number"),
        ("[" * 5_000, "nested too deeply"),
        (b"\x80abc", "this is not a text in UTF-8"),
        ("a: \x00", "this is not a text in UTF-8"),
    ],
)
def test_what_is_no_plain_value_is_refused_with_its_line(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidYaml) as refused:
        read_yaml(text, "f")
    assert message in str(refused.value)


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a: &a [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefgh")]
    with pytest.raises(InvalidYaml, match="too many values"):
        read_yaml("\n".join(lines), "f")
