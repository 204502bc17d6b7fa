-- One row per night of the 30 days up to $run_date, oldest first: who was served, and how many items
-- the lists hold. Nights whose lists have been expired are counted by `list_days`.
-- reads: editions, interactions, items, list_days, models, recommendations, $run_date
-- makes: rows (run_date, users, popular_users, without_list, model_id, model_age_days, items, shown)
with served as (
    select
        editions.*,
        epoch(editions.published_at - models.trained_at) / 86400 as model_age_days
    from editions
    left join models using (model_id)
    where
        editions.status = 'current'
        and editions.run_date between $run_date::date - 29 and $run_date::date
),

listed as (
    select
        run_date,
        count(distinct item_id) as items
    from recommendations
    where run_date between $run_date::date - 29 and $run_date::date
    group by run_date
),

first_seen as (
    select
        item_id,
        min(timestamp) as first_at
    from interactions
    where
        not exists (select 1 from items)
        or item_id in (select item_id from items where eligible)
    group by item_id
)

select
    served.run_date,
    served.users,
    served.popular_users,
    served.without_list,
    served.model_id,
    served.model_age_days,
    coalesce(listed.items, list_days.items) as items,
    coalesce(listed.items, list_days.items) / nullif(
        (
            select count(*)
            from first_seen
            where first_at < coalesce(served.data_until, served.run_date + 1)
        ),
        0
    ) as shown
from served
left join listed using (run_date)
left join list_days
    on served.run_date = list_days.run_date and served.edition = list_days.edition
order by served.run_date
