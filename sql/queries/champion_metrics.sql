-- One row per system, the best first: the champion and each baseline, with its metrics on every
-- user's last item, which was held out of training; lists are made as a night makes them.
with systems as (
    select
        if(system = 'model', 'model ' || model_id, system) as name,
        max(result) filter (where metric = 'hr@10') as hr_10,
        max(result) filter (where metric = 'ndcg@10') as ndcg_10
    from model_metrics
    inner join champion using (model_id)
    where
        system <> 'champion'
        and split = 'test'
        and slice = 'all'
        and protocol = coalesce(config ->> '$.judged', 'masked')
    group by 1
)

select
    name as system,
    hr_10 as "HR@10",
    ndcg_10 as "NDCG@10",
    ndcg_10
    / nullif((select ndcg_10 from systems where name = 'popularity'), 0)
        as "NDCG@10 against popularity"
from systems
order by ndcg_10 desc, name
