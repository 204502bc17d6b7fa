-- One row per run_date, edition, user and rank: every list that was ever published, with what
-- became of its edition. Rows without an edition are of a run that was killed, and are not shown.
create view recommendation_editions as
select
    stored.* replace (coalesce(stored.edition, 1) as edition),
    editions.status
from stored_recommendations() as stored
inner join editions
    on stored.run_date = editions.run_date and coalesce(stored.edition, 1) = editions.edition;
