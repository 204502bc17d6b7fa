-- One row per row of `lists`, which is `recommendations` of a lake that may have no editions yet.
-- reads: lists
-- makes: rows (*, edition)
select
    *,
    1 as edition
from lists
