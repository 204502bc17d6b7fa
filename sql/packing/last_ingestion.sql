-- One row: the last time of ingestion of `interactions`, in microseconds; a missing one is last.
-- reads: interactions
-- makes: rows (ingested)
select max(coalesce(epoch_us(ingested_at), 9223372036854775807)) as ingested
from interactions
