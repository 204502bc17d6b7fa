-- One row per user and rank of the newest run_date, copied so that it needs no other file.
create table latest_recommendations as
select *
from stored_recommendations
where run_date = (select max(run_date) from stored_recommendations)
order by user_id, rank;
