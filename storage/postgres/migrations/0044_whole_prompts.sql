-- Whether a photo's caption is its whole prompt: nothing is put before it. Those of before say what the photo shows only.
alter table data_set_images add column whole_prompt boolean not null default false;
