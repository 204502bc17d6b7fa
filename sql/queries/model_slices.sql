-- One row per part of the users: NDCG@10 of the champion on test items, by history and popularity.
select
    model_metrics.slice,
    model_metrics.users,
    model_metrics.protocol,
    model_metrics.result as ndcg_10
from model_metrics
inner join champion using (model_id)
where
    model_metrics.system = 'model'
    and model_metrics.split = 'test'
    and model_metrics.metric = 'ndcg@10'
order by model_metrics.slice, model_metrics.protocol
