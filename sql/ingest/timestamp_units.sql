-- One row: how much of the column `timestamp` is numbers, how many of them are plausible times in
-- each unit, and examples.
-- reads: recsys_source_rows, $ms_high, $ms_low, $ns_high, $ns_low, $s_high, $s_low, $ticks_high,
--     $ticks_low, $us_high, $us_low, $yyyymmdd_high, $yyyymmdd_low
-- makes: rows (filled, numbers, s, ms, us, ns, yyyymmdd, ticks, lowest, middle, highest)
with stamps as (
    select try_cast("timestamp" as double) as number
    from recsys_source_rows
    where "timestamp" is not null and fault is null
),

finite as (
    select case when isfinite(number) then number end as number
    from stamps
)

select
    count(*) as filled,
    count(number) as numbers,
    count(*) filter (where number between $s_low and $s_high) as s,
    count(*) filter (where number between $ms_low and $ms_high) as ms,
    count(*) filter (where number between $us_low and $us_high) as us,
    count(*) filter (where number between $ns_low and $ns_high) as ns,
    count(*) filter (
        where number between $yyyymmdd_low and $yyyymmdd_high and number = floor(number)
    ) as yyyymmdd,
    count(*) filter (where number between $ticks_low and $ticks_high) as ticks,
    min(number) as lowest,
    approx_quantile(number, 0.5) as middle,
    max(number) as highest
from finite
