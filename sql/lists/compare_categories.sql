-- One row per category: its share of the places of two sets of lists, the largest change first.
-- reads: compared, items, $count
-- makes: rows (section, name, a, b, shared)
with placed as (
    select
        category,
        count(*) filter (where side = 'a') as places_a,
        count(*) filter (where side = 'b') as places_b
    from compared
    inner join items using (item_id)
    where category is not null
    group by category
),

shares as (
    select
        category,
        places_a / nullif(sum(places_a) over (), 0) as a,
        places_b / nullif(sum(places_b) over (), 0) as b
    from placed
)

select
    'categories' as section,
    category as name,
    a,
    b,
    null::double as shared
from shares
order by abs(coalesce(a, 0) - coalesce(b, 0)) desc, category
limit $count::bigint
