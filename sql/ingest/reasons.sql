-- One row per reason: how many rows were rejected for it.
with reasons as (
    select unnest(reasons) as reason
    from rejected
)

select
    reason,
    count(*) as rejected_rows
from reasons
group by reason
order by rejected_rows desc, reason
