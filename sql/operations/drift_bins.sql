-- One row per measure and bin: interactions of the newest time and of the reference that fall in
-- it; of history lengths: users. Bins of items hold a tenth of the reference each, by popularity.
-- reads: interactions, items, $reference_since, $reference_until, $since, $timezone, $until
-- makes: rows (measure, bin, rows, reference_rows)
with seen as (
    select
        user_id,
        item_id,
        timezone($timezone, timestamp) as local_time,
        timestamp >= $since as is_new,
        timestamp >= $reference_since and timestamp < $reference_until as is_reference
    from interactions
    where timestamp >= least($since, $reference_since) and timestamp < $until
),

counted_items as (
    select
        item_id,
        count(*) filter (where is_new) as rows,
        count(*) filter (where is_reference) as reference_rows
    from seen
    group by item_id
),

popular as (
    select
        rows,
        reference_rows,
        sum(reference_rows) over (order by reference_rows desc, item_id) - reference_rows as before,
        sum(reference_rows) over () as total
    from counted_items
),

histories as (
    select
        user_id,
        bool_or(timestamp >= $since) as is_new,
        bool_or(timestamp >= $reference_since and timestamp < $reference_until) as is_reference,
        count(*) as length,
        count(*) filter (where timestamp < $reference_until) as reference_length
    from interactions
    where timestamp < $until
    group by user_id
),

lengths as (
    select
        floor(log2(length)) as bin,
        1 as rows,
        0 as reference_rows
    from histories
    where is_new

    union all

    select
        floor(log2(reference_length)),
        0,
        1
    from histories
    where is_reference
)

select
    'item popularity' as measure,
    if(reference_rows = 0, 'new', cast(floor(10 * before / total) as varchar)) as bin,
    sum(rows) as rows,
    sum(reference_rows) as reference_rows
from popular
group by bin

union all

select
    'categories',
    coalesce(items.category, ''),
    sum(counted_items.rows),
    sum(counted_items.reference_rows)
from counted_items
left join items using (item_id)
where exists(select 1 from items where category is not null)
group by items.category

union all

select
    'history lengths',
    cast(bin as varchar),
    sum(rows),
    sum(reference_rows)
from lengths
group by bin

union all

select
    'hours',
    cast(hour(local_time) as varchar),
    count(*) filter (where is_new),
    count(*) filter (where is_reference)
from seen
group by hour(local_time)

union all

select
    'weekdays',
    cast(isodow(local_time) as varchar),
    count(*) filter (where is_new),
    count(*) filter (where is_reference)
from seen
group by isodow(local_time)
