-- Leaderboards: for each board and day one published edition, and the creators who have a place on it.

-- An edition is written beside what is read, and read once it is published; then the one that it replaces goes.
create table leaderboard_editions (
    id           bigint generated always as identity primary key,
    board        text not null,
    day          date not null,
    since        timestamptz not null,
    until        timestamptz not null check (until > since),
    definition   jsonb not null,
    prepared_at  timestamptz not null default now(),
    published_at timestamptz
);
create unique index leaderboard_editions_published on leaderboard_editions (board, day) where published_at is not null;
create index leaderboard_editions_by_day on leaderboard_editions (day);

-- Ranks are not kept: they are those among the creators who may be shown when somebody looks.
create table leaderboard_places (
    edition_id bigint not null references leaderboard_editions (id) on delete cascade,
    account_id uuid not null references accounts (id),
    score      bigint not null check (score > 0),
    counts     jsonb not null,
    primary key (edition_id, account_id)
);

insert into watched_flows (flow) values ('rank-leaderboards');
