-- paces --
-- Median seconds an optimizer step took, start to end of the job, by device: over the last 30 jobs that succeeded on a
-- base model with settings that make a step as long.
select device, count(*) as jobs, percentile_cont(0.5) within group (order by pace) as seconds_per_step
  from (select request -> 'recipe' ->> 'device' as device,
               extract(epoch from ended_at - started_at) / greatest((request -> 'recipe' ->> 'steps')::int, 1) as pace
          from jobs
         -- A retry may have done only some of its steps, or none.
         where kind = 'training' and state = 'succeeded' and request ->> 'base_model' = %(base_model)s
           and retry_of is null and request -> 'recipe' @> %(settings)s
           and ((request -> 'recipe' ->> 'prior_loss_weight')::float > 0) = %(prior_loss_weight)s
           and ((request -> 'recipe' ->> 'text_encoder_learning_rate')::float > 0) = %(text_encoder_learning_rate)s
         order by sequence desc limit 30) recent
 where device <> ''
 group by device
 order by jobs desc, device;
