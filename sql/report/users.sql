-- One row per user: $count users of the lists of $run_date, drawn by a hash with $seed.
-- reads: recommendations, $count, $run_date, $seed
-- makes: rows (user_id)
select user_id
from recommendations
where run_date = $run_date::date and rank = 1
order by md5(user_id || ' ' || $seed), user_id
limit $count::bigint
