-- One row per source: its newest accepted batch.
create view latest_batches as
select *
from batches
where status = 'accepted'
qualify row_number() over (partition by source order by finished desc) = 1;
