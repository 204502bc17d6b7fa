-- One row per item whose number of lists differs most between two sets of them.
-- reads: compared, items, $count
-- makes: rows (section, name, a, b, shared)
select
    'items' as section,
    coalesce(any_value(items.title), compared.item_id::varchar) as name,
    count(*) filter (where side = 'a')::double as a,
    count(*) filter (where side = 'b')::double as b,
    null::double as shared
from compared
left join items on compared.item_id = items.item_id
group by compared.item_id
having a <> b
order by abs(a - b) desc, compared.item_id
limit $count::bigint
