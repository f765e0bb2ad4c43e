"""Prompts are read as A1111 reads them, whatever they hold."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InvalidRequest
from storage.records.generation import prompts
from storage.records.generation.prompts import (
    AdapterTag,
    PromptBudget,
    PromptPart,
    adapter_tags,
    check_prompt,
    escaped,
    weighted_parts,
    without_adapter_tags,
)

ANY = st.text(st.sampled_from("ab ,:.159+-()[]\\\n") | st.characters(), max_size=60) | st.lists(
    st.sampled_from(["(", ")", "[", "]", "\\", ":1.3)", " BREAK ", "BREAK", "mug", " "]), max_size=20
).map("".join)

READ: dict[str, list[tuple[str, float]]] = {
    # As the examples of A1111's own documentation and doctest have them.
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "((twice))": [("twice", 1.21)],
    "a [weak] word": [("a ", 1.0), ("weak", 1 / 1.1), (" word", 1.0)],
    "(word:1.5)": [("word", 1.5)],
    "(word: 1.5 )": [("word", 1.5)],
    "(word:.5)": [("word", 0.5)],
    "(word:-1)": [("word", -1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    "[unbalanced": [("unbalanced", 1 / 1.1)],
    "un) balanced]": [("un) balanced]", 1.0)],
    "unopened:1.3)": [("unopened:1.3)", 1.0)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ],
    # Round and square brackets do not wait for each other.
    "([a)b]": [("a", 1.0), ("b", 1 / 1.1)],
    "([a]b)": [("a", 1.0), ("b", 1.1)],
    # What is no weight is text; a backslash before another character is left out.
    "(x:1.2.3)": [("x:1.2.3", 1.1)],
    "(x:)": [("x:", 1.1)],
    "ratio 16:9": [("ratio 16:9", 1.0)],
    r"a\b": [("ab", 1.0)],
    "": [("", 1.0)],
    "()": [("", 1.0)],
}


@pytest.mark.parametrize("prompt", READ)
def test_weights_are_those_of_a1111(prompt: str) -> None:
    parts = weighted_parts(prompt)

    assert [part.text for part in parts] == [text for text, _ in READ[prompt]]
    assert [part.weight for part in parts] == pytest.approx([weight for _, weight in READ[prompt]])
    assert not any(part.new_chunk for part in parts)


BROKEN: dict[str, list[tuple[str, float, bool]]] = {
    "a mug BREAK in the snow": [("a mug", 1.0, False), ("in the snow", 1.0, True)],
    "a BREAK BREAK b": [("a", 1.0, False), ("", 1.0, True), ("b", 1.0, True)],
    "BREAK a": [("", 1.0, False), ("a", 1.0, True)],
    "a BREAK": [("a", 1.0, False), ("", 1.0, True)],
    "a BREAK (b:1.3) c": [("a", 1.0, False), ("b", 1.3, True), (" c", 1.0, False)],
    "(a BREAK b:1.3)": [("a", 1.3, False), ("b", 1.3, True)],
    "a BREAKFAST, a break": [("a BREAKFAST, a break", 1.0, False)],
}


@pytest.mark.parametrize("prompt", BROKEN)
def test_break_begins_a_chunk_also_inside_of_brackets(prompt: str) -> None:
    assert weighted_parts(prompt) == tuple(PromptPart(*part) for part in BROKEN[prompt])


@given(ANY)
def test_reading_never_fails_and_parts_are_as_few_as_they_can_be(prompt: str) -> None:
    parts = weighted_parts(prompt)

    assert parts
    for before, after in pairwise(parts):
        assert after.new_chunk or (before.weight != after.weight and before.text and after.text)


@given(st.text(st.characters(exclude_characters="()[]\\"), max_size=60).filter(lambda text: "BREAK" not in text))
def test_a_text_without_brackets_is_one_part_of_weight_one(text: str) -> None:
    assert weighted_parts(text) == (PromptPart(text),)


@given(ANY)
def test_what_is_escaped_is_read_as_the_text_that_it_was(text: str) -> None:
    assert weighted_parts(escaped(text)) == (PromptPart(text),)


@given(st.integers(0, 400), st.integers(0, 400))
def test_nested_brackets_multiply(rounds: int, squares: int) -> None:
    [part] = weighted_parts("(" * rounds + "[" * squares + "x")

    assert part.weight == pytest.approx(1.1 ** (rounds - squares))


def test_tags_of_adapters_are_found_apart_from_the_text() -> None:
    prompt = "a mug <lora:sks-mug:0.8> on <LoRA:My Style> a <lyco:x:0.5:0.7>beach <hypernet:y:much>, a<b <lora:>"

    assert adapter_tags(prompt) == (
        AdapterTag("<lora:sks-mug:0.8>", "lora", "sks-mug", 0.8),
        AdapterTag("<LoRA:My Style>", "lora", "My Style", 1.0),
        AdapterTag("<lyco:x:0.5:0.7>", "lyco", "x", 0.5),
        AdapterTag("<hypernet:y:much>", "hypernet", "y", None),
    )
    assert without_adapter_tags(prompt) == "a mug  on  a beach , a<b <lora:>"


REFUSED = {
    "a mug <lora:sks-mug:0.8>": "loads no adapters: <lora:sks-mug:0.8>. Ask for them in the field adapters",
    "a [cat:dog:0.5]": r"'\[cat:dog:0.5\]' is prompt editing",
    "a [dog:10]": "is prompt editing",
    "a [cat::0.5]": "is prompt editing",
    "a [cat|dog] in a hat": r"'\[cat\|dog\]' is prompt editing or alternation",
    "a (mug:101)": "'mug' has the weight 101; the limit is 100",
    "a (mug:-1000)": "has the weight -1000",
}


@pytest.mark.parametrize("prompt", REFUSED)
def test_what_would_not_be_drawn_as_it_is_meant_is_refused_with_its_field(prompt: str) -> None:
    with pytest.raises(InvalidRequest, match=REFUSED[prompt]) as refused:
        check_prompt("negativePrompt", prompt)

    assert set(refused.value.fields) == {"negativePrompt"}
    assert len(str(refused.value)) < 300


def test_weights_that_are_no_finite_number_are_refused() -> None:
    endless = "9" * 400
    for prompt, weight in ((f"({endless}:{endless})", "inf"), (f"((mug:0):{endless})", "nan")):
        with pytest.raises(InvalidRequest, match=f"has the weight {weight}"):
            check_prompt("prompt", prompt)


def test_brackets_without_end_are_refused() -> None:
    check_prompt("prompt", "(a) [b] " * 60 + "(" * 20 + "[" * 30 + "x")
    for prompt in ("(a" * 5_000, "([" * 26 + "x" + "])" * 26, "(x:0.9) " + "((a:1.1) [b]" * 51):
        with pytest.raises(InvalidRequest, match="more than 50 brackets within each other"):
            check_prompt("prompt", prompt)


@pytest.mark.parametrize("prompt", ["a (red:1.4) mug", "[a:b (c:1.2)]", r"\[cat:dog:0.5\]", "a [weak] mug, 16:9", "<3"])
def test_other_prompts_pass(prompt: str) -> None:
    check_prompt("prompt", prompt)


def test_a_text_is_checked_once_and_texts_within_a_budget() -> None:
    budget, text = PromptBudget(200), "(a) [b] " * 10
    for _ in range(50):
        budget.check(text, "prompt")

    with pytest.raises(InvalidRequest, match="too many brackets") as refused:
        budget.check(text + "c", "negativePrompt")

    assert set(refused.value.fields) == {"negativePrompt"}


def test_prompts_that_are_kept_have_room_for_so_many_characters() -> None:
    budget = PromptBudget(characters=100)
    budget.keep(100, "prompt")

    with pytest.raises(InvalidRequest, match="the prompts of all pictures are more than"):
        budget.keep(1, "prompt")


def test_words_between_the_same_brackets_are_weighed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(float):
        times = 0

        def __rmul__(self, other: float) -> float:
            Counted.times += 1
            return other * float(self)

    monkeypatch.setattr(prompts, "ROUND", Counted(1.1))

    [part] = weighted_parts("(" * 45 + "a:" * 4_000 + ")" * 45)

    assert (part.text, part.weight, Counted.times) == ("a:" * 4_000, pytest.approx(1.1**45), 45)
