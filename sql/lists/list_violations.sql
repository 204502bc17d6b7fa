-- One row per rule that whole lists of some users must keep, with the number of violations (0 is
-- good). `lists` has the order they are published in (by user and rank), `history` one row per
-- interaction of the same users, `had` where its item counts as had.
-- reads: eligible, history, lists, $exclude_seen, $k, $may_be_short, $min_confidence, $most_new
-- makes: rows (rule, violations)
with seen as materialized (
    select
        user_id,
        item_id,
        bool_or(had) as is_had
    from history
    group by user_id, item_id
),

had as (
    select
        user_id,
        count(eligible.item_id) filter (where is_had) as items
    from seen
    left join eligible using (item_id)
    group by user_id
),

due as (
    select
        user_id,
        least(
            $k, (select count(*) from eligible) - if($exclude_seen, items, 0)
        ) as items
    from had
),

made as (
    select
        user_id,
        count(*) as items,
        max(rank) as last_rank
    from lists
    group by user_id
),

-- Without an order by, a window sees the rows as they come, in one pass.
neighbours as materialized (
    select
        rank,
        score,
        reason,
        confidence,
        starts_with(reason, 'model') as is_of_model,
        case
            when reason = 'pinned' then 0
            when is_of_model then 1
            when reason = 'own-history' then 2
            else 3
        end as part,
        lag(user_id) over () is not distinct from user_id as is_same_user,
        lag(rank) over () as rank_before,
        lag(score) over () as score_before,
        lag(part) over () as part_before,
        lag(confidence) over () as confidence_before
    from lists
)

select
    'every user gets k items, or all that are left' as rule,
    count(*) as violations
from due
full join made using (user_id)
where
    coalesce(due.items, 0) < coalesce(made.items, 0)
    or (coalesce(due.items, 0) > coalesce(made.items, 0) and not $may_be_short)

union all

select
    'ranks run from 1 without a gap',
    (
        select count(*)
        from neighbours
        where rank is distinct from if(is_same_user, rank_before + 1, 1)
    )
    + (select count(*) from made where last_rank <> items)

union all

select
    'no list names an item twice',
    count(*)
from (
    select user_id
    from lists
    group by user_id, item_id
    having count(*) > 1
) as repeated

union all

select
    'no list names an item that its user has had',
    count(*)
from lists
inner join seen using (user_id, item_id)
where $exclude_seen and is_had

union all

select
    'every item is eligible and somebody has interacted with it',
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
    'pinned, the model''s, own and popular items come in this order, by falling score',
    count(*)
from neighbours
where
    is_same_user
    and (
        part < part_before
        or (part = part_before and score > score_before)
    )

union all

select
    'confidence is a probability, one for a list, and none where popularity made it',
    count(*)
from neighbours
where
    not confidence between 0 and 1
    or (is_same_user and confidence is distinct from confidence_before)
    or (not is_same_user and starts_with(reason, 'popular') and confidence is not null)

union all

select
    'the model''s lists are as sure as they have to be',
    count(*)
from neighbours
where is_of_model and confidence < $min_confidence::float

union all

select
    'items that the model has not learnt take no more than their share',
    count(*)
from (
    select user_id
    from lists
    where reason = 'model-new-item'
    group by user_id
    having count(*) > $most_new
) as crowded
