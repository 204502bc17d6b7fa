-- One row per rule that the staged lists must keep, with the number of offences (0 is good).
-- Views: lists (staged), interactions, eligible (item_id). Parameters: k, exclude_seen.
with users as (
    select distinct user_id from interactions
),

history as (
    select distinct user_id, item_id from interactions
),

had as (
    select
        user_id,
        count(*) as items
    from history
    semi join eligible using (item_id)
    group by user_id
),

due as (
    select
        users.user_id,
        least(
            $k,
            (select count(*) from eligible)
            - if($exclude_seen, coalesce(had.items, 0), 0)
        ) as items
    from users
    left join had using (user_id)
),

made as (
    select
        user_id,
        count(*) as items,
        count(distinct item_id) as distinct_items,
        count(distinct rank) as distinct_ranks,
        min(rank) as first_rank,
        max(rank) as last_rank
    from lists
    group by user_id
),

neighbours as (
    select
        score,
        reason,
        lag(score) over ranked as score_before,
        lag(reason) over ranked as reason_before
    from lists
    window ranked as (partition by user_id order by rank)
)

select
    'every user has the items due' as rule,
    count(*) as offences
from due
full join made using (user_id)
where coalesce(due.items, 0) <> coalesce(made.items, 0)

union all

select
    'ranks run from 1 without a gap',
    count(*)
from made
where first_rank <> 1 or last_rank <> items or distinct_ranks <> items

union all

select
    'no item twice in a list',
    count(*)
from made
where distinct_items <> items

union all

select
    'no item the user has had',
    count(*)
from lists
semi join history using (user_id, item_id)
where $exclude_seen

union all

select
    'every item is in the catalogue and eligible',
    count(*)
from lists
anti join eligible using (item_id)

union all

select
    'scores are finite',
    count(*)
from lists
where score is null or not isfinite(score)

union all

select
    'scores fall, the model''s before popularity''s',
    count(*)
from neighbours
where
    (reason = reason_before and score > score_before)
    or (reason = 'model' and reason_before = 'popular')
