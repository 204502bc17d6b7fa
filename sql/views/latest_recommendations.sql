-- One row per user and rank of the newest run_date that is not in the future (a clock may have run
-- ahead). No row where that night served nobody. The catalog copies them, so that they need no
-- other file, unless they are too many. They lie as they were published, by user: one user's list
-- is found by the span of user_id that each block of rows has, without an order by, which costs
-- more than the copy at 100 M rows.
-- reads: newest_lists
-- makes: rows (those of recommendations)
select * replace (coalesce(edition, 1) as edition)
from newest_lists()
