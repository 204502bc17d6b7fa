-- One row per reason: how many rows were rejected for it.
-- reads: rejected_rows
-- makes: rows (reason, rejected_rows)
with reasons as (
    select unnest(reasons) as reason
    from rejected_rows
)

select
    reason,
    count(*) as rejected_rows
from reasons
group by reason
order by rejected_rows desc, reason
