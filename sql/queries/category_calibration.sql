-- One row per category: its share of all interactions beside its share of the newest lists.
with had as (
    select
        coalesce(category, '') as category,
        count(*) / sum(count(*)) over () as share_of_interactions
    from interactions
    left join items using (item_id)
    group by 1
),

listed as (
    select
        coalesce(category, '') as category,
        count(*) / sum(count(*)) over () as share_of_lists
    from recommendations_titled
    group by 1
)

select
    category,
    coalesce(share_of_interactions, 0) as share_of_interactions,
    coalesce(share_of_lists, 0) as share_of_lists
from had
full join listed using (category)
order by share_of_interactions desc, category
