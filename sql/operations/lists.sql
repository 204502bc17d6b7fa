-- One row per row of `lists`, which is `recommendations`; rows of before there were editions belong
-- to the first.
-- reads: lists
-- makes: rows (*)
select * replace (coalesce(edition, 1) as edition)
from lists
