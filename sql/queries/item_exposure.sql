-- One row per recommended item of the newest run date, most shown first.
with shown as (
    select
        item_id,
        count(*) as users,
        avg(rank) as mean_rank
    from latest_recommendations
    group by item_id
)

select
    shown.item_id,
    items.title,
    shown.users,
    shown.users / (select count(distinct user_id) from latest_recommendations) as share_of_users,
    shown.mean_rank
from shown
left join items using (item_id)
order by shown.users desc, shown.item_id
