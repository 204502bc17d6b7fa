-- One row per run date: the share of all interacted items that are in at least one list.
select
    run_date,
    count(distinct item_id) as items_shown,
    (select count(distinct item_id) from interactions) as items_in_catalogue,
    count(distinct item_id) / (select count(distinct item_id) from interactions) as coverage
from recommendations
group by run_date
order by run_date desc
