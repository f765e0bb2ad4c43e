-- A hand-out is called an attempt, as everywhere in this field. Code of before does not run on this schema: stop it first.
-- squawk-ignore renaming-column
alter table jobs rename column hand_out to attempt;
-- squawk-ignore renaming-column
alter table jobs rename column silent_hand_outs to silent_attempts;
-- squawk-ignore renaming-object
alter table jobs rename constraint jobs_hand_out_check to jobs_attempt_check;
-- squawk-ignore renaming-object
alter table jobs rename constraint jobs_silent_hand_outs_check to jobs_silent_attempts_check;
