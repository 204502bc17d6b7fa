-- One row per user and popular item that the user has had: what may be missing in the list that
-- popularity would have made. Only of users that it matters for, and items that may matter to them.
-- reads: interactions, judged_items, popular_places, roles_of, $judged, $until
-- makes: table crossed_out (user_id, item_id, first_at, known_at)
create or replace temp table crossed_out as
with candidates as (
    select
        user_id,
        max(place) as last_place
    from judged_items
    where place is not null
    group by user_id
),

histories as (
    select
        user_id,
        count(*) as interactions
    from interactions
    semi join candidates using (user_id)
    where timestamp < $until
    group by user_id
),

bounds as (
    select
        user_id,
        least(candidates.last_place, $judged + histories.interactions) as last_place
    from candidates
    inner join histories using (user_id)
)

select
    interactions.user_id,
    interactions.item_id,
    min(interactions.timestamp) as first_at,
    min(coalesce(interactions.ingested_at, '-infinity'::timestamptz)) as known_at
from interactions
inner join popular_places using (item_id)
inner join bounds
    on interactions.user_id = bounds.user_id and popular_places.place < bounds.last_place
where
    interactions.timestamp < $until
    and (roles_of(interactions.event, interactions.value, interactions.timestamp) & 4) > 0
group by interactions.user_id, interactions.item_id
