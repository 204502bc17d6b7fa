-- One row per user and slice of lists: a digest of the history that the user's list was made from.
-- reads: interactions
-- makes: table used_histories (user_id, interactions, content)
create or replace temp table used_histories as
select
    user_id,
    0::bigint as interactions,
    0::hugeint as content
from interactions
limit 0
