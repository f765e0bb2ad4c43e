-- add_channels --
-- The channels of this release beside those that are there: rows of before, or of a later release, name the others.
with named as (
    select name, signed, outward
      from unnest(%(names)s::text[], %(signed)s::boolean[], %(outward)s::boolean[]) as one (name, signed, outward)
), added as (
    insert into channels (name) select name from named on conflict (name) do nothing returning name
), outward as (
    insert into address_channels (name, signed)
    select name, signed from named where outward
    on conflict (name) do nothing returning name
)
select name from added union select name from outward;

-- unlike_channels --
-- Channels of which the database knows the contrary, with addresses that have a secret, or have none, by that.
select named.name
  from unnest(%(names)s::text[], %(signed)s::boolean[], %(outward)s::boolean[]) as named (name, signed, outward)
  left join address_channels known on known.name = named.name
 where named.outward is distinct from (known.name is not null)
    or (named.outward and named.signed is distinct from known.signed);
