-- One row per interaction, with its item's place: users in order, each user's in time order.
-- Ties in time keep the order in which the source had the rows; without one, they go by item_id.
-- reads: arrivals, interactions, users, vocabulary
-- makes: rows (place)
select vocabulary.place
from interactions
inner join users using (user_id)
inner join vocabulary using (item_id)
inner join arrivals on interactions.ingested_at is not distinct from arrivals.ingested_at
order by
    users.place,
    interactions.timestamp,
    arrivals.shift + coalesce(interactions.source_row, arrivals.beyond),
    -- All four fit in one sort key of 32 bytes, without a row beside it.
    vocabulary.place
