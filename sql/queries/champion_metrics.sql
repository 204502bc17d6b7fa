-- One row per system, the best first: the champion and each baseline, with its metrics on every
-- user's last item, which was held out of training; items that the user has had are left out.
with served as (
    select *
    from champion
),

baselines as (
    select
        name,
        popularity_test_ndcg_10,
        '$."' || name || '".test.' || coalesce(config ->> '$.judged', 'masked') as path,
        baselines as figures
    from (select *, unnest(json_keys(baselines)) as name from served)
    where name not in ('popularity', 'champion')
),

systems as (
    select
        'model ' || model_id as system,
        test_hr_10 as hr_10,
        test_ndcg_10 as ndcg_10,
        popularity_test_ndcg_10
    from served

    union all

    select
        'popularity',
        popularity_test_hr_10,
        popularity_test_ndcg_10,
        popularity_test_ndcg_10
    from served

    union all

    select
        name,
        cast(json_extract(figures, path || '."hr@10"') as double),
        cast(json_extract(figures, path || '."ndcg@10"') as double),
        popularity_test_ndcg_10
    from baselines
)

select
    system,
    hr_10 as "HR@10",
    ndcg_10 as "NDCG@10",
    ndcg_10 / nullif(popularity_test_ndcg_10, 0) as "NDCG@10 against popularity"
from systems
order by ndcg_10 desc, system;
