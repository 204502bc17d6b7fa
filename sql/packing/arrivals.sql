-- One row per time of ingestion of `interactions`: `shift` + source_row rises with (ingested_at,
-- source_row), since a sort by one integer takes half the time and memory of one by both.
-- `beyond` is used for a missing source_row: such rows are the last of their ingestion.
-- reads: interactions
-- makes: rows (ingested_at, beyond, shift)
with spans as (
    select
        ingested_at,
        coalesce(min(source_row), 0) as lowest,
        coalesce(max(source_row), 0) + 1 as beyond
    from interactions
    group by ingested_at
)

select
    ingested_at,
    beyond,
    cast(coalesce(
        sum(beyond - lowest + 1) over (
            order by ingested_at rows between unbounded preceding and 1 preceding
        ), 0
    ) as bigint) - lowest as shift
from spans
