-- One row: how many rows there are, and a hash of them that their order does not change.
-- reads: delivered
-- makes: rows (rows, hash)
select
    count(*) as rows,
    coalesce(
        sum(hash(user_id, rank, item_id, score, confidence, reason, model_id, edition)), 0
    ) as hash
from delivered
