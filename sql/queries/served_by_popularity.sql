-- One row per run date: users whose list holds no item from a model.
with users as (
    select
        run_date,
        user_id,
        bool_and(starts_with(reason, 'popular')) as popular_only
    from recommendations
    group by run_date, user_id
)

select
    run_date,
    count(*) as users,
    count(*) filter (where popular_only) as served_by_popularity,
    count(*) filter (where popular_only) / count(*) as share
from users
group by run_date
order by run_date desc
