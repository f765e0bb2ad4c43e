"""A catalogue of any size for the search benchmark, written by set, without the triggers of a living one."""

from __future__ import annotations

import itertools

import psycopg

_FIRST = ("anime", "photo", "oil", "pixel", "water", "cyber", "steam", "dragon", "castle", "forest", "ocean", "neon")
_LAST = ("style", "girl", "knight", "city", "portrait", "painting", "machine", "garden", "light", "dress", "cat", "art")
WORDS = [first + last for first, last in itertools.product(_FIRST, _LAST)] + list(_FIRST)
"""Words of names and descriptions."""

_STATEMENTS = (
    "set session_replication_role = replica",
    "insert into accounts (name) select 'creator' || n from generate_series(1, 500) n",
    "insert into tags (name) select 'tag' || n from generate_series(1, 300) n",
    """
    insert into models (account_id, name, type, description, status, published_at, visible, listed, public_versions,
                        base_models, nsfw_level, last_version_at)
    select owner.id,
           word(n) || ' ' || word(n * 7) || ' ' || n,
           (array['Checkpoint', 'LORA', 'LORA', 'LORA', 'TextualInversion', 'VAE'])[n % 6 + 1],
           (select string_agg(word(n * 13 + k * k * 31), ' ') from generate_series(1, 25) k),
           'Published', now(), true, true, array[n],
           array[(array['SD 1.5', 'SDXL 1.0', 'Pony', 'Flux.1 D'])[n % 4 + 1]],
           (array[1, 1, 1, 3, 4, 28])[n % 6 + 1],
           timestamptz '2025-01-01' + make_interval(secs => n * 37 % 31536000)
      from generate_series(1, {count}) n
      join (select id, row_number() over (order by number) as place from accounts) owner on owner.place = n % 500 + 1
     order by n
    """,
    """
    insert into model_versions (model_id, position, name, base_model, trained_words, status, published_at)
    select id, 1, 'v1.0', base_models[1], array[word(id::int * 3)], 'Published', last_version_at
      from models order by id
    """,
    """
    insert into version_files (version_id, path, role, sha256, size)
    select id, 'model_' || id || '.safetensors', 'weights', lpad(to_hex(id), 64, '0'), 1000
      from model_versions order by id
    """,
    "insert into file_hashes (file_id, kind, hash) select id, 'SHA256', upper(sha256) from version_files",
    "insert into model_tags (model_id, tag_id) select id, id * k % 300 + 1 from models, generate_series(1, 3) k"
    " on conflict do nothing",
    "insert into model_stats (model_id, thumbs_up_count, download_count) select id, id * 7919 % 1009, id * 31 % 5003"
    " from models",
    "analyze",
)


def fill_catalogue(url: str, count: int) -> None:
    """`count` listed models, each with a version, a file, three tags and counts."""
    with psycopg.connect(url, autocommit=True) as connection:
        array = ", ".join(f"'{word}'" for word in WORDS)
        connection.execute(
            f"create function word(n int) returns text language sql immutable as "
            f"$$ select (array[{array}])[abs(n) % {len(WORDS)} + 1] $$".encode()
        )
        for statement in _STATEMENTS:
            connection.execute(statement.replace("{count}", str(int(count))).encode())
