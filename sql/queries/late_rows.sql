-- One row per day of ingestion, newest first: interactions that came over $days (an integer) days
-- late.
select
    cast(ingested_at as date) as day,
    count(*) as interactions,
    count(*) filter (where ingested_at - timestamp > to_days($days::integer)) as late
from interactions
where ingested_at is not null
group by day
order by day desc
