-- {build} stands for a build's number, {matching} for the fragment of that name.

-- one_snapshot --
-- The alias and everything read after it are of one moment.
set transaction isolation level repeatable read;

-- planned_for_these_values --
-- A plan for any values would use no index of a filter; an approximate index goes on until enough pass the filters.
select set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.ef_search', %(ef_search)s::text, true),
       set_config('hnsw.max_scan_tuples', '100000', true);

-- candidates --
-- Words of the same stem and words that may be a typing error away; the caller says which are.
-- Form by form, because the planner takes many overlapping arrays for half of the table and reads all of it.
select word, stem from search_build_{build}_words where stem = any(%(stems)s::text[])
 union
select word, stem
  from unnest(%(deletes)s::int[]) form
  join search_build_{build}_words known on known.deletes @> array[form];

-- matching --
not removed
   and (%(words)s::tsquery is null or words @@ %(words)s::tsquery)
   and (%(type)s::text[] is null or labels && %(type)s::text[])
   and (%(base_model)s::text[] is null or labels && %(base_model)s::text[])
   and (%(tag)s::text[] is null or labels && %(tag)s::text[])
   and (%(creator)s::text[] is null or labels && %(creator)s::text[])
   and (%(shape)s::text[] is null or labels && %(shape)s::text[])
   and (%(places)s::int[] is null
        or not exists (select from unnest(%(places)s::int[], %(at_least)s::bigint[]) as asked (place, number)
                        where ranks[place] < number))
   and (%(levels)s::int is null or levels & %(levels)s::int <> 0)
   and (%(published_from)s::bigint is null or published_at >= %(published_from)s::bigint)
   and (%(published_before)s::bigint is null or published_at < %(published_before)s::bigint)

-- total --
select count(*) as total from search_build_{build}
 where {matching};

-- facets --
-- The most frequent values of each facet, with how many documents have them.
select facet, value, documents
  from (select split_part(label, '=', 1) as facet, substr(label, strpos(label, '=') + 1) as value,
               count(*) as documents,
               row_number() over (partition by split_part(label, '=', 1)
                                      order by count(*) desc, label collate "C") as position
          from search_build_{build}, unnest(labels) label
         where split_part(label, '=', 1) = any(%(facets)s::text[])
           and {matching}
         group by label) counted
 where position <= %(most)s
 order by facet, position;

-- relevant --
select id,
       search_score(words, %(queries)s::text[]::tsquery[], %(numbers)s::int[], %(scores)s::int[])
       + case when name = %(name)s then %(whole_name)s::int else 0 end as score
  from search_build_{build}
 where {matching}
 order by score desc, ranks[%(first)s::int] desc, ranks[%(second)s::int] desc, id desc
 limit %(limit)s offset %(offset)s;

-- sorted --
select id, 0 as score
  from search_build_{build}
 where {matching}
 order by ranks[%(first)s::int] * %(sign)s::int desc, ranks[%(second)s::int] * %(sign)s::int desc,
          id * %(sign)s::int desc
 limit %(limit)s offset %(offset)s;

-- nearest --
select id, -distance as score
  from (select id, vector <#> %(vector)s::halfvec as distance
          from search_build_{build}
         where vector is not null
           and {matching}
         order by vector <#> %(vector)s::halfvec
         limit %(limit)s) nearest
 order by distance, id;
