-- One row per interaction with an event that lists are judged by, within the time of any of them.
-- reads: interactions, roles_of, $since, $until
-- makes: table recent_interactions (user_id, item_id, timestamp)
create or replace temp table recent_interactions as
select
    user_id,
    item_id,
    timestamp
from interactions
where
    timestamp >= $since
    and timestamp < $until
    and (roles_of(event, value, timestamp) & 1) > 0
