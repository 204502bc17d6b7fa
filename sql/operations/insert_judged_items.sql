-- One row per user with a list and item that this user took after they were made. Where lists leave
-- out what a user has had, only items that were new to the user count.
-- reads: first_interactions, known_items, recent_interactions, stored_lists, stored_places,
--     $data_until, $edition, $excludes_seen, $has_model, $judged, $known_by, $run_date, $since,
--     $until
-- makes: rows of judged_items
insert into judged_items
with lists as not materialized (
    select
        user_id,
        item_id,
        rank,
        reason,
        model_id
    from stored_lists
    where run_date = $run_date and coalesce(edition, 1) = $edition and rank <= $judged
),

popular as (
    select
        item_id,
        place
    from stored_places
    where run_date = $run_date and edition = $edition
),

taken as (
    select
        user_id,
        item_id,
        min(timestamp) as taken_at
    from recent_interactions
    where timestamp >= $since and timestamp < $until
    group by user_id, item_id
),

relevant as (
    select taken.*
    from taken
    left join first_interactions as had using (user_id, item_id)
    where
        not $excludes_seen
        or had.first_at is null
        or (
            had.first_at >= $since
            and not (had.first_at < $data_until and had.known_at < $known_by)
        )
),

served as (
    select
        user_id,
        model_id,
        if(reason in ('popular', 'own-history'), 'new', 'known') as user_kind
    from lists
    where rank = 1
)

select
    $run_date as run_date,
    relevant.user_id,
    relevant.item_id,
    relevant.taken_at,
    served.user_kind,
    served.model_id,
    case
        when $has_model then if(known_items.item_id is null, 'new', 'known')
    end as item_kind,
    lists.rank,
    lists.reason,
    popular.place
from relevant
inner join served using (user_id)
left join lists using (user_id, item_id)
left join popular using (item_id)
left join known_items using (item_id)
