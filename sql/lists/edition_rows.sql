-- One row: how many rows an edition has. Rows of before there were editions belong to the first.
-- reads: recommendations, $edition, $run_date
-- makes: rows (rows)
select count(*) as rows
from recommendations
where run_date = $run_date and coalesce(edition, 1) = $edition
