-- {build} stands for a build's number, {matching} and {counted} for the fragments of those names, {score} for what a
-- document's words are worth, {labels} for its labels where they are counted, {segment} for the rows of one segment,
-- {each} for what each segment has.

-- one_snapshot --
-- The alias and everything read after it are of one moment.
set transaction isolation level repeatable read;

-- planned_for_these_values --
-- A plan for any values would use no index of a filter; pages mostly come from memory, where a compiled plan costs more
-- than it saves; an approximate index goes on until enough pass the filters.
select set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('random_page_cost', '1.1', true),
       set_config('jit', 'off', true),
       set_config('work_mem', '32MB', true),
       set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.max_scan_tuples', '100000', true);

-- wide --
select set_config('hnsw.ef_search', %(ef_search)s::text, true);

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

-- counted --
-- The most frequent values of each facet, with how many documents have them.
select split_part(label, '=', 1) as facet, substr(label, strpos(label, '=') + 1) as value, documents
  from (select label, documents,
               row_number() over (partition by split_part(label, '=', 1)
                                      order by documents desc, label collate "C") as position
          from (select label, count(*) as documents
                  from matched, unnest(labels) label
                 where label ^@ any(%(facets)s::text[])
                 group by label) each_label) numbered
 where position <= %(maximum)s
 order by facet, position

-- found --
-- What matches is looked up once: a page of it, how much it is, and the labels it has.
with matched as materialized (
    select id, {score} as score, {labels} as labels,
           ranks[%(first)s::int] * %(sign)s::int as first, ranks[%(second)s::int] * %(sign)s::int as second
      from search_build_{build}
     where {matching}
)
select (select count(*) from matched) as total,
       (select coalesce(json_agg(page), '[]')
          from (select id, score from matched
                 order by score desc, first desc, second desc, id * %(sign)s::int desc
                 limit %(limit)s offset %(offset)s) page) as hits,
       (select coalesce(json_agg(counts), '[]') from ({counted}) counts) as counts;

-- total --
select count(*) as total from search_build_{build}
 where {matching};

-- facets --
with matched as (select labels from search_build_{build} where {matching})
{counted};

-- some --
-- How many match, counted no further than `maximum`.
select count(*) as documents from (select from search_build_{build} where {matching} limit %(maximum)s) enough;

-- nearest --
-- An approximate index returns them in nearly their order, so more than are asked for are put in order.
select id, -distance as score from ({each}) nearest order by distance, id limit %(limit)s;

-- nearest_of_segment --
-- pgvector's operator is the negative inner product, since an index only orders upwards.
(select id, vector <#> %(vector)s::halfvec as distance
   from search_build_{build}
  where vector is not null
    and {segment}
    and {matching}
  order by vector <#> %(vector)s::halfvec
  limit %(looked_at)s)

-- nearest_of_few --
-- Every one of them is looked at.
with few as materialized (
    select id, vector <#> %(vector)s::halfvec as distance
      from search_build_{build}
     where vector is not null
       and {matching}
)
select id, -distance as score from few order by distance, id limit %(limit)s;
