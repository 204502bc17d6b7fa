-- One row per user of `interactions` who has a row there that may come before a cached one.
-- $ingested is the last time of ingestion in the cache.
-- reads: cached_users, interactions, $ingested
-- makes: rows (user_id)
select distinct user_id
from interactions
inner join cached_users using (user_id)
where
    interactions.timestamp < cached_users.newest
    or (
        interactions.timestamp = cached_users.newest
        and coalesce(epoch_us(interactions.ingested_at), 9223372036854775807) <= $ingested
    )
