-- paces --
-- Medians by device of what jobs took: a step, what happens between two steps, and all before and after the steps. Over
-- the last 30 jobs that succeeded on a base model with settings that make a step as long, among the newest 300 on it,
-- which an index has in this order. Of a retry that trained no step of its own nothing counts: its fit was made by the
-- job that it retries, which counts by itself if it succeeded.
-- A recipe that was recorded before there was frozen_precision held its base in fp32.
select device, count(*) as jobs,
       percentile_cont(0.5) within group (order by step_seconds) as step_seconds,
       percentile_cont(0.5) within group (order by pause_seconds) as pause_seconds,
       percentile_cont(0.5) within group (order by before_seconds) as before_seconds,
       percentile_cont(0.5) within group (order by after_seconds) as after_seconds
  from (select request -> 'recipe' ->> 'device' as device, step_seconds, pause_seconds, after_seconds,
               greatest(0, others.before_seconds + fit.seconds - steps * (step_seconds + pause_seconds)) as before_seconds
          from (select id, request, sequence from jobs
                 where kind = 'training' and state = 'succeeded' and request ->> 'base_model' = %(base_model)s
                 order by sequence desc limit 300) jobs
          join job_stages fit on fit.job_id = jobs.id and fit.stage = 'fit' and fit.made_by = jobs.id
         cross join lateral (select (fit.result ->> 'steps')::int as steps,
                                    (fit.result ->> 'step_seconds')::float as step_seconds,
                                    (fit.result ->> 'pause_seconds')::float as pause_seconds) own
         cross join lateral (select coalesce(sum(seconds) filter (where stage = 'regularize'), 0) as before_seconds,
                                    coalesce(sum(seconds) filter (where stage in ('evaluate', 'export')), 0)
                                        as after_seconds
                               from job_stages where job_id = jobs.id) others
         where steps >= 10 and ('{"frozen_precision": "fp32"}'::jsonb || (request -> 'recipe')) @> %(settings)s
           and ((request -> 'recipe' ->> 'prior_loss_weight')::float > 0) = %(prior_loss_weight)s
           and ((request -> 'recipe' ->> 'text_encoder_learning_rate')::float > 0) = %(text_encoder_learning_rate)s
           and ((request -> 'recipe' ->> 'token_learning_rate')::float > 0) = %(token_learning_rate)s
         order by sequence desc limit 30) recent
 where device <> ''
 group by device
 order by jobs desc, device;

-- seconds_per_step --
-- Median seconds from a step to the next over the last ten jobs that succeeded on a base model, whatever their settings,
-- among the newest 300 on it. An attempt of fewer than ten steps is mostly warm-up, and does not count.
select percentile_cont(0.5) within group (order by pace) as seconds
  from (select (fit.result ->> 'step_seconds')::float + (fit.result ->> 'pause_seconds')::float as pace
          from (select id, sequence from jobs
                 where kind = 'training' and state = 'succeeded' and request ->> 'base_model' = %(base_model)s
                 order by sequence desc limit 300) jobs
          join job_stages fit on fit.job_id = jobs.id and fit.stage = 'fit' and fit.made_by = jobs.id
         where (fit.result ->> 'steps')::int >= 10
         order by sequence desc limit 10) recent;
