-- As histories.sql; `code` is 8 times the item's place plus the interaction's roles, and `seconds`
-- its time since 1970.
-- reads: arrivals, interactions, users, vocabulary, roles_of
-- makes: rows (code, seconds)
select
    vocabulary.place * 8
    + roles_of(interactions.event, interactions.value, interactions.timestamp) as code,
    epoch_us(interactions.timestamp) // 1000000 as seconds
from interactions
inner join users using (user_id)
inner join vocabulary using (item_id)
inner join arrivals on interactions.ingested_at is not distinct from arrivals.ingested_at
order by
    users.place,
    interactions.timestamp,
    arrivals.shift + coalesce(interactions.source_row, arrivals.beyond),
    code
