-- One row per row of `recent_interactions`: when the user took the item the time before, and what
-- `first_interactions` has of the two. So each night's first ones are found without grouping again.
-- reads: first_interactions, recent_interactions
-- makes: table taken_items (user_id, item_id, timestamp, previous_at, first_at, known_at)
create or replace temp table taken_items as
select
    recent.user_id,
    recent.item_id,
    recent.timestamp,
    lag(recent.timestamp)
        over (partition by recent.user_id, recent.item_id order by recent.timestamp)
        as previous_at,
    had.first_at,
    had.known_at
from recent_interactions as recent
left join first_interactions as had using (user_id, item_id)
