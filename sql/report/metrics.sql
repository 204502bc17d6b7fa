-- One row per system and slice: the test figures of $model_id and of what it was compared with, in
-- the protocol that judged it; the best first.
-- reads: model_metrics, models, $model_id
-- makes: rows (system, slice, users, ndcg, hr, low, high)
with figures as (
    select model_metrics.*
    from model_metrics
    inner join models using (model_id)
    where
        model_id = $model_id
        and split = 'test'
        and protocol = coalesce(models.config ->> '$.judged', 'masked')
)

select
    system,
    slice,
    any_value(users) as users,
    max(result) filter (where metric = 'ndcg@10') as ndcg,
    max(result) filter (where metric = 'hr@10') as hr,
    max(low) filter (where metric = 'ndcg@10') as low,
    max(high) filter (where metric = 'ndcg@10') as high
from figures
group by system, slice
having ndcg is not null
order by slice = 'all' desc, ndcg desc, system
