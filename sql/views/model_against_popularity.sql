-- One row per model, newest first: its test figures beside popularity's on the same users.
create view model_against_popularity as
select
    model_id,
    status,
    trained_at,
    test_hr_10,
    popularity_test_hr_10,
    test_ndcg_10,
    popularity_test_ndcg_10,
    test_ndcg_10 / nullif(popularity_test_ndcg_10, 0) as ndcg_10_ratio
from models
order by trained_at desc;
