-- One row per system, the champion and popularity: its metrics on every user's last item,
-- which was held out of training; items that the user has had are left out.
select
    'model ' || model_id as system,
    test_hr_10 as "HR@10",
    test_ndcg_10 as "NDCG@10",
    test_ndcg_10 / nullif(popularity_test_ndcg_10, 0) as "NDCG@10 against popularity"
from champion

union all

select
    'popularity',
    popularity_test_hr_10,
    popularity_test_ndcg_10,
    1.0
from champion
