-- One row per run_date, user and rank: the lists that are served, of every run_date.
create view recommendations as
select * exclude (status)
from recommendation_editions
where status = 'current';
