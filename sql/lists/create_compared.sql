-- One row per side, user and rank of two sets of lists.
-- reads: lists_a, lists_b
-- makes: table compared (side, user_id, rank, item_id, reason)
create or replace temp table compared as
select
    'a' as side,
    user_id,
    rank,
    item_id,
    reason
from lists_a

union all

select
    'b',
    user_id,
    rank,
    item_id,
    reason
from lists_b
