-- One row per user whose id begins with $text, in any case, the shortest first; at most $count.
-- reads: interactions, $count, $text
-- makes: rows (user_id)
select user_id
from interactions
where starts_with(lower(user_id::varchar), lower($text))
group by user_id
order by length(user_id::varchar), user_id
limit $count::bigint
