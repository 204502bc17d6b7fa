-- One row per user and rank of the newest run_date that is not in the future (a clock may have run
-- ahead), copied so that it needs no other file.
-- They lie as they were published, by user: one user's list is found by the span of user_id that
-- each block of rows has, without an order by, which costs more than the copy at 100 M rows.
create table latest_recommendations as
select *
from stored_recommendations
where run_date = (
    select max(run_date)
    from stored_recommendations
    where run_date <= current_date + 1
);
