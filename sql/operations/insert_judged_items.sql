-- One row per user with a list and item that this user took after they were made. Where lists leave
-- out what a user has had, only items that were new to the user count.
-- reads: known_items, stored_lists, stored_places, taken_items, $data_until, $edition,
--     $excludes_seen, $has_model, $judged, $known_by, $run_date, $since, $until
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

relevant as (
    select
        user_id,
        item_id,
        timestamp as taken_at
    from taken_items
    where
        timestamp >= $since
        and timestamp < $until
        and (previous_at is null or previous_at < $since)
        and (
            not $excludes_seen
            or first_at is null
            or (first_at >= $since and not (first_at < $data_until and known_at < $known_by))
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
