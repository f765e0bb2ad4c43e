"""Whom a comment mentions, and what may be reacted with."""

from __future__ import annotations

import pytest

from storage.errors import NotFound
from storage.records.social.social import MAX_MENTIONS, REACTIONS, Entity, Reaction, check_reaction, mentioned_names


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("nobody", ()),
        ("@ann", ("ann",)),
        ("Thanks @Ann, and (@bob.)!", ("ann", "bob")),
        ("@ann @ANN @ann", ("ann",)),
        ("ask me@example.org or see x.org/@ann", ()),
        ("@ann-marie_2 and @d.j.", ("ann-marie_2", "d.j")),
        ("@ @- @@ann\n@zoë", ("zoë",)),
        (" ".join(f"@n{n}" for n in range(50)), tuple(f"n{n}" for n in range(MAX_MENTIONS))),
    ],
)
def test_a_mention_is_a_name_behind_an_at_sign(content: str, names: tuple[str, ...]) -> None:
    assert mentioned_names(content) == names


def test_an_entity_takes_its_own_reactions_only() -> None:
    for entity in Entity:
        for reaction in Reaction:
            if reaction in REACTIONS[entity]:
                check_reaction(entity, reaction)
            else:
                with pytest.raises(NotFound, match="one of"):
                    check_reaction(entity, reaction)
