-- One row per source and reason, at most 10: rows of the 30 days before $until in quarantine.
-- reads: quarantine, $until
-- makes: rows (reason, source, rows, last_seen)
with reasons as (
    select
        unnest(reasons) as reason,
        source,
        quarantined_at
    from quarantine
    where
        quarantined_at > $until::timestamptz - interval 30 days
        and quarantined_at <= $until::timestamptz
)

select
    reason,
    source,
    count(*) as rows,
    max(quarantined_at) as last_seen
from reasons
group by reason, source
order by rows desc, reason, source
limit 10
