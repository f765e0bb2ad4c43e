-- Uploads of model files that arrive in parts, and what was checked of a file's tensors.

alter table version_files add column checked text check (checked in ('structure', 'family'));

-- `received` bytes are on the disk for good; the file's last bytes are received together with what the file became, so
-- a process that dies while it finishes leaves an upload that goes on.
create table model_uploads (
    id              uuid primary key,
    account_id      uuid not null references accounts (id),
    version_id      bigint not null references model_versions (id),
    name            text not null check (name <> ''),
    type            text not null,
    length          bigint not null check (length > 0),
    received        bigint not null default 0 check (received between 0 and length),
    expected_sha256 text check (expected_sha256 ~ '^[0-9a-f]{64}$'),
    metadata        text not null,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    file_id         bigint references version_files (id),
    check ((file_id is not null) = (received = length))
);
create index model_uploads_by_account on model_uploads (account_id, created_at);
create index model_uploads_by_expiry on model_uploads (expires_at);
