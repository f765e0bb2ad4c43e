-- What an Idempotency-Key was used for, when that was no job: the answer, which a repeat gets again.

alter table idempotency_keys
    alter column job_id drop not null,
    add column answer text,
    add check (job_id is null or answer is null);
