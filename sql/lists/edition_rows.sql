-- One row: how many rows an edition has. Rows older than the first edition belong to it.
-- reads: recommendations, $edition, $run_date
-- makes: rows (rows)
select count(*) as rows
from recommendations
where run_date = $run_date and coalesce(edition, 1) = $edition
