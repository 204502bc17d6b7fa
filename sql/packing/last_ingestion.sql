-- The last moment of ingestion of `interactions`, in microseconds; one that is not given is last.
select max(coalesce(epoch_us(ingested_at), 9223372036854775807)) as ingested
from interactions
