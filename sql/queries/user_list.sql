-- One row per rank: what the user $user_id (an id) is recommended today, with titles; or one row
-- that says why there is no list.
with list as (
    select
        rank,
        item_id,
        title,
        score,
        reason,
        confidence,
        run_date
    from recommendations_titled
    where user_id = $user_id
)

select
    *,
    null as note
from list

union all by name

select
    if(
        exists(select 1 from interactions where user_id = $user_id),
        'this user has interactions, but no list of the newest night',
        'no interaction of this user is known'
    ) as note
where not exists(select 1 from list)
order by rank
