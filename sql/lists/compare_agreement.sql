-- One row per figure of how far two sets of lists agree, over the users who are in both.
-- reads: compared, $cutoffs
-- makes: rows (section, name, a, b, shared)
with users as (
    select
        user_id,
        count(*) filter (where side = 'a') as size_a,
        count(*) filter (where side = 'b') as size_b
    from compared
    group by user_id
),

common as (
    select *
    from users
    where size_a > 0 and size_b > 0
),

pairs as (
    select
        a.user_id,
        a.rank as rank_a,
        b.rank as rank_b
    from compared as a
    inner join compared as b using (user_id, item_id)
    where a.side = 'a' and b.side = 'b'
),

cutoffs as (
    select unnest($cutoffs) as cutoff
),

items_of_both as (
    select
        user_id,
        cutoff,
        count(*) as items
    from pairs
    inner join cutoffs on greatest(rank_a, rank_b) <= cutoff
    group by user_id, cutoff
),

agreement as (
    select
        cutoff,
        avg(coalesce(items, 0) / cutoff) as overlap
    from common
    cross join cutoffs
    left join items_of_both using (user_id, cutoff)
    group by cutoff
),

sames as (
    select
        user_id,
        count(*) filter (where rank_a = rank_b) as places,
        count(*) filter (where rank_a = 1 and rank_b = 1) as firsts
    from pairs
    group by user_id
),

figures as (
    select
        1 as place,
        'users' as name,
        count(*) filter (where size_a > 0)::double as a,
        count(*) filter (where size_b > 0)::double as b,
        count(*) filter (where size_a > 0 and size_b > 0)::double as shared
    from users

    union all

    select
        1 + cutoff,
        'overlap@' || cutoff,
        null,
        null,
        overlap
    from agreement

    union all

    select
        100,
        'users with the same list',
        null,
        null,
        count(*) filter (where places = size_a and places = size_b)::double
    from common
    left join sames using (user_id)

    union all

    select
        101,
        'users with the same first item',
        null,
        null,
        coalesce(sum(firsts), 0)::double
    from sames

    union all

    select
        102,
        'places that a shared item moves',
        null,
        null,
        avg(abs(rank_a - rank_b))
    from pairs
)

select
    'agreement' as section,
    name,
    a,
    b,
    shared
from figures
order by place
