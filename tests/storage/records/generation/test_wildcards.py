"""Choices in prompts are made as the Dynamic Prompts extension reads them, by the seed alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import SequenceMatcher
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InvalidRequest
from storage.records.generation.prompts import PromptBudget
from storage.records.generation.wildcards import MAX_VALUES, PromptChoices, without_choices

LISTS: dict[str, list[str]] = {
    "colour-warm": ["red", "{dark|light} yellow"],
    "colour-cold": ["blue"],
    "style/old": ["oil", "3::etching"],
    "scene": ["in __weather__", "on grass"],
    "weather": ["the snow", "the rain"],
    "itself": ["a __itself__"],
    "this": ["__that__ __that__"],
    "that": ["__this__ __this__"],
    "empty": [],
    "weightless": ["0::a"],
    "long": ["x" * 9_999],
    "many": ["x"] * (MAX_VALUES + 1),
}


def made(prompt: str, lists: Mapping[str, Sequence[str]] = LISTS) -> set[str]:
    return {without_choices(prompt, seed, lists) for seed in range(150)}


def pairs(texts: Sequence[str], joiner: str) -> set[str]:
    return {joiner.join(two) for two in permutations(texts, 2)}


MADE: dict[str, set[str]] = {
    "a {red|blue} mug": {"a red mug", "a blue mug"},
    "a {|very }old {|mug}": {"a old ", "a very old ", "a old mug", "a very old mug"},
    "{a|{b|c}d}": {"a", "bd", "cd"},
    "{only}{}": {"only"},
    "{2::a|0::b|.5::c}": {"a", "c"},
    "{2$$a|b|c}": pairs("abc", ", "),
    "{2$$ and $$a|b|c}": pairs("abc", " and "),
    "{2$$$$a|b}": {"ab", "ba"},
    "{0-1$$a}": {"", "a"},
    "{1-2$$+$$a|b}": {"a", "b", "a+b", "b+a"},
    "{-2$$a|b}": {"a", "b", "a, b", "b, a"},
    "{1-$$a|b}": {"a", "b", "a, b", "b, a"},
    "{9$$a|b}": {"a, b", "b, a"},
    "{2$$a|0::b}": {"a"},
    "{2$${a|b}|c}": {"a, c", "b, c", "c, a", "c, b"},
    "__weather__": {"the snow", "the rain"},
    "__scene__": {"in the snow", "in the rain", "on grass"},
    "__colour*__": {"red", "dark yellow", "light yellow", "blue"},
    "__style/old__": {"oil", "etching"},
    "{2$$__weather__}": pairs(["the snow", "the rain"], ", "),
    "{__weather__|x}": {"the snow", "the rain", "x"},
    # Weights of attention, and whatever else a prompt may hold, pass as they are.
    "a (red:1.3) mug, a|b, 2::c, $5, snake_case, a __b, ____, \\(c\\), \\\\": {
        "a (red:1.3) mug, a|b, 2::c, $5, snake_case, a __b, ____, \\(c\\), \\\\"
    },
    r"\{a\|b\} \__weather\__ $\{c\}": {"{a|b} __weather__ ${c}"},
    r"{a\|b|c\}d}": {"a|b", "c}d"},
}


@pytest.mark.parametrize("prompt", MADE)
def test_each_of_the_texts_that_can_be_made_is_made(prompt: str) -> None:
    assert made(prompt) == MADE[prompt]


def test_weights_say_how_often_an_option_is_chosen() -> None:
    counted = Counter(without_choices("{3::a|b}", seed) for seed in range(2_000))
    from_list = Counter(without_choices("__style/old__", seed, LISTS) for seed in range(2_000))

    # Four standard deviations of 2,000 throws.
    assert abs(counted["a"] - 1_500) < 80
    assert abs(from_list["etching"] - 1_500) < 80


def test_the_same_seed_makes_the_same_text_for_ever() -> None:
    prompt = "a {red|green|blue} {mug|car} __scene__, {2$$x|y|z}"

    # Written down once: a picture is drawn again from its seed years later.
    assert [without_choices(prompt, seed, LISTS) for seed in (0, 1, 2**31)] == [
        "a blue mug on grass, y, x",
        "a blue car on grass, x, z",
        "a blue car in the rain, x, y",
    ]


def test_the_order_in_which_lists_are_given_does_not_count() -> None:
    turned = dict(reversed(LISTS.items()))

    for seed in range(20):
        assert without_choices("__colour*__", seed, LISTS) == without_choices("__colour*__", seed, turned)


def test_choices_of_one_prompt_do_not_follow_each_other() -> None:
    texts = Counter(without_choices("{a|b}{a|b}", seed) for seed in range(400))

    assert set(texts) == {"aa", "ab", "ba", "bb"}
    assert min(texts.values()) > 60


@given(
    st.text("ab|{}_$:0123-\\ ", max_size=40) | st.lists(st.sampled_from([*MADE, *"{|}"])).map("".join), st.integers()
)
def test_any_text_is_made_or_refused(prompt: str, seed: int) -> None:
    with suppress(InvalidRequest):
        assert without_choices(prompt, seed, LISTS) == without_choices(prompt, seed, LISTS)


@given(st.text(st.characters(exclude_characters="{}_\\"), max_size=60), st.integers())
def test_a_text_without_choices_stays_as_it_is(prompt: str, seed: int) -> None:
    assert without_choices(prompt, seed) == prompt


REFUSED = {
    "a __wether__": "there is no list 'wether'; known are, nearest first: weather, ",
    "a __wether*__": "there is no list 'wether\\*'",
    "{__colour__|x}|{__colour__|x}|{__colour__}": "there is no list 'colour'; known are, nearest first: colour-",
    "__empty__": "the list 'empty' has no value",
    "__weightless__": "the list 'weightless' has no value",
    "__many__": "the list 'many' has 10,001 values; the limit is 10,000",
    "{0::a|0::b}": "options all have the weight 0",
    "{3-2$$a|b}": "at least 3 and at most 2",
    "{a|b": "there is a { without its }",
    "a|b}": "there is a } without its {",
    "${c=red} mug": "variables",
    "__weather(c=red)__": "'__weather\\(c=red\\)__' has parameters",
    "__itself__": "name themselves or each other never end",
    "__this__": "name themselves or each other never end",
    "__long__ __long__": "longer than 10,000 characters",
}


@pytest.mark.parametrize("prompt", REFUSED)
def test_what_cannot_be_chosen_is_refused_with_its_field(prompt: str) -> None:
    with pytest.raises(InvalidRequest, match=REFUSED[prompt]) as refused:
        without_choices(prompt, 1, LISTS, field="negativePrompt")

    assert set(refused.value.fields) == {"negativePrompt"}


def test_limits_are_kept_by_prompts_that_would_grow_without_end() -> None:
    too_much = {
        "more than 16 deep": "{" * 17 + "a" + "}" * 17,
        "more than 200 choices": "{a}" * 201,
        "longer than 10,000 characters": "{2$$" + "x" * 10_001 + "$$a|b}",
    }

    for reason, prompt in too_much.items():
        with pytest.raises(InvalidRequest, match=reason):
            without_choices(prompt, 1)


def test_a_list_is_read_once_for_all_pictures() -> None:
    class Read(list[str]):
        times = 0

        def __iter__(self) -> Iterator[str]:
            self.times += 1
            return super().__iter__()

    values, alone = Read(map(str, range(500))), [str(number) for number in range(500)]
    choices = PromptChoices({"a": values}, PromptBudget(20_000))

    made = [choices.text("{20$$__a__}", seed, "prompt") for seed in range(64)]

    assert made == [without_choices("{20$$__a__}", seed, {"a": alone}) for seed in range(64)]
    assert values.times == 1


COSTLY = {
    "many values of uneven weights": ("{20$$$$__a__}", {"a": ["2::x"] * 5_000}),
    "many choices": ("{}" * 200, {}),
    "many options": ("{" + "a|" * 4_900 + "}", {}),
    "many patterns": (" ".join(f"__{'*' * stars}__" for stars in range(1, 40)), {"a": ["x"] * 5_000}),
    "many characters": ("_" * 9_900, {}),
}


@pytest.mark.parametrize("what", COSTLY)
def test_what_would_take_long_is_refused(what: str) -> None:
    prompt, lists = COSTLY[what]
    budget = PromptBudget()

    with pytest.raises(InvalidRequest, match="too many brackets, choices and values") as refused:
        for step in range(16):
            for seed in range(64):
                PromptChoices(lists, budget).text(f"{step}{prompt}", seed, "negativePrompt")

    assert set(refused.value.fields) == {"negativePrompt"}


def test_of_many_names_only_the_nearest_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    lists, compared = {f"colour-{number:03}": ["x"] for number in range(100)}, list[str]()
    ratio = SequenceMatcher.ratio
    monkeypatch.setattr(SequenceMatcher, "ratio", lambda self: compared.append("") or ratio(self))

    with pytest.raises(InvalidRequest, match=r"nearest first: colour-042, .* and 90 more"):
        without_choices("__color-042__", 1, lists)
    with pytest.raises(InvalidRequest, match="is longer than the name of any list, 64 characters"):
        without_choices(f"__{'a' * 10_000}__", 1, lists)

    # difflib computes each ratio twice.
    assert len(compared) == 2 * 10


def test_without_lists_underscores_can_be_escaped() -> None:
    with pytest.raises(InvalidRequest, match="none was given"):
        without_choices("a __very__ old mug", 1)

    assert without_choices(r"a \_\_very\_\_ old mug", 1) == "a __very__ old mug"
