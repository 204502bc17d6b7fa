-- One row per user of this slice: the size of the history, and the sum of its items' hashes,
-- each with whether it counts as had.
-- reads: history
-- makes: rows of used_histories
insert into used_histories
select
    user_id,
    count(*) as interactions,
    sum(hash(item_id, had)) as content
from history
group by user_id
