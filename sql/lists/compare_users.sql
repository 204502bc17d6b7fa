-- One row per user in both sets of lists who changes most: items of each list, and of both.
-- reads: compared, $count
-- makes: rows (section, name, a, b, shared)
with listed as (
    select
        user_id,
        item_id,
        count(*) filter (where side = 'a') as in_a,
        count(*) filter (where side = 'b') as in_b
    from compared
    group by user_id, item_id
)

select
    'users' as section,
    user_id::varchar as name,
    sum(in_a)::double as a,
    sum(in_b)::double as b,
    sum(in_a * in_b)::double as shared
from listed
group by user_id
having a > 0 and b > 0 and shared < greatest(a, b)
order by shared / greatest(a, b), user_id
limit $count::bigint
