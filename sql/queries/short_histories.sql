-- One row per length of history up to $longest (an integer): users, and those the model served.
with histories as (
    select
        user_id,
        count(*) as interactions
    from interactions
    group by user_id
),

lists as (
    select
        user_id,
        bool_or(starts_with(reason, 'model')) as has_model_items
    from latest_recommendations
    group by user_id
)

select
    interactions,
    count(*) as users,
    count(lists.user_id) as users_with_list,
    count(*) filter (where has_model_items) as users_with_model_items
from histories
left join lists using (user_id)
where interactions <= $longest::bigint
group by interactions
order by interactions
