-- One row per interaction whose item is in `vocabulary`: users in order, each user's in time order.
-- Ties in time keep the order in which the source gave the rows.
select vocabulary.item
from interactions
inner join vocabulary using (item_id)
order by
    interactions.user_id,
    interactions.timestamp,
    interactions.ingested_at,
    interactions.source_row
