-- What a photo shows beside its subject, and how often it comes in a pass. Those of before say nothing, and come once.
alter table data_set_images add column caption text not null default '';
alter table data_set_images add column repeats int not null default 1;
-- Not validated: rows of before have the defaults, which fit.
alter table data_set_images
    add constraint data_set_images_caption_length check (length(caption) <= 2000) not valid;
alter table data_set_images
    add constraint data_set_images_repeats_limits check (repeats between 1 and 1000) not valid;
