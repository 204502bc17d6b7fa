-- One row per user and rank of the newest run_date that is not in the future (a clock may have run
-- ahead), copied so that it needs no other file. No row where that night served nobody.
-- They lie as they were published, by user: one user's list is found by the span of user_id that
-- each block of rows has, without an order by, which costs more than the copy at 100 M rows.
create table latest_recommendations as
select * replace (coalesce(edition, 1) as edition)
from newest_files
where
    run_date = (select run_date from newest_edition)
    and coalesce(edition, 1) = (select edition from newest_edition);
