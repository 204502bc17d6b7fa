-- One row per user and rank of the lists that are explained.
-- reads: explained_users, recommendations
-- makes: rows (user_id, rank, item_id, reason)
select
    user_id,
    rank,
    item_id,
    reason
from recommendations
semi join explained_users using (user_id)
order by user_id, rank
