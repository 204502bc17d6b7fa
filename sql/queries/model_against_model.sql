-- One row per metric: what the models $model_a and $model_b (model_ids) have on their test items.
select
    protocol,
    metric,
    any_value(result) filter (where model_id = $model_a) as a,
    any_value(result) filter (where model_id = $model_b) as b,
    any_value(result) filter (where model_id = $model_b)
    - any_value(result) filter (where model_id = $model_a) as difference
from model_metrics
where system = 'model' and split = 'test' and slice = 'all' and model_id in ($model_a, $model_b)
group by protocol, metric
order by protocol, metric
