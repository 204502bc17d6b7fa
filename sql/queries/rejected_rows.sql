-- One row per reason: rejected rows, when the last one came, and one example of it.
with reasons as (
    select
        source,
        unnest(reasons) as reason,
        quarantined_at,
        object,
        source_row,
        row
    from quarantine
)

select
    source,
    reason,
    count(*) as rows_rejected,
    max(quarantined_at) as last_seen,
    arg_max(object, quarantined_at) as example_object,
    arg_max(source_row, quarantined_at) as example_source_row,
    arg_max(row, quarantined_at) as example_row
from reasons
group by source, reason
order by rows_rejected desc, source, reason
