-- One row per user and slice of lists: the history that the user's list was made from, condensed.
create or replace temp table histories_used as
select
    user_id,
    0::bigint as interactions,
    0::hugeint as content
from interactions
limit 0
