-- One row per user of this slice: the size of the history and the sum of its items' hashes.
-- reads: history
-- makes: rows of used_histories
insert into used_histories
select
    user_id,
    count(*) as interactions,
    sum(hash(item_id)) as content
from history
group by user_id
