-- One row per run date: the share of the items that could be shown that night which are in at least
-- one list; null for nights of which it is not known how many could.
with shown as (
    select
        run_date,
        count(distinct item_id) as items_shown
    from recommendations
    group by run_date
)

select
    run_date,
    shown.items_shown,
    editions.eligible_items,
    shown.items_shown / editions.eligible_items as coverage
from shown
left join editions using (run_date)
where editions.status = 'current'
order by run_date desc
