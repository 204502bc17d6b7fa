-- One row per row of `lists`, which is `recommendations`; rows older than the first
-- edition belong to it.
-- reads: lists
-- makes: rows (*)
select * replace (coalesce(edition, 1) as edition)
from lists
