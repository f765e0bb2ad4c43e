from __future__ import annotations

import pytest

from flows.diffusion.families.protocol import Components
from flows.training.photos.prompts import prompt_warnings
from storage.records.jobs.training_samples import prompt_of
from tests.flows.training.tiny import FAMILY, recipe


def test_prompts_that_the_encoder_reads_whole_need_no_words(components: Components):
    one = next(word for word in ("sks", "zwx", "mug") if len(FAMILY.identifier_tokens(components, word)) == 1)
    wanted = recipe(identifier=one)
    assert prompt_warnings(FAMILY, components, wanted, [wanted.instance_prompt], [0]) == []


def test_a_caption_that_is_cut_off_is_named_by_its_photo_with_both_lengths(components: Components):
    caption = "a mug " * components.tokenizer.model_max_length
    found = prompt_warnings(FAMILY, components, recipe(), ["a", caption, caption], [3, 5, 4])
    [warning] = [one for one in found if "reads" in one]
    length = len(components.tokenizer(caption).input_ids)
    read = f"the text encoder reads the first {components.tokenizer.model_max_length}"
    photo = "the prompt of the photo at position 4 of the data set and 1 more"
    assert warning == f"{photo} is {length} tokens; {read}. Shorten it."


def test_an_identifier_in_pieces_is_named(components: Components):
    [warning] = [
        one for one in prompt_warnings(FAMILY, components, recipe(identifier="qzj7xv9k"), [], []) if "identifier" in one
    ]
    tokens = len(FAMILY.identifier_tokens(components, "qzj7xv9k"))
    assert tokens > 1
    assert f"'qzj7xv9k' is {tokens} tokens" in warning


@pytest.mark.parametrize(
    ("caption", "prompt"),
    [
        ("", "a photo of a sks mug"),
        ("on the beach", "a photo of a sks mug, on the beach"),
        ("a SKS mug on the beach", "a SKS mug on the beach"),
        ("masks on the beach", "a photo of a sks mug, masks on the beach"),
        ("sks, mug, beach", "sks, mug, beach"),
    ],
)
def test_a_caption_is_the_prompt_and_the_subject_is_kept_where_it_is_lacking(caption: str, prompt: str):
    assert prompt_of(caption, "sks", "a photo of a sks mug") == prompt
