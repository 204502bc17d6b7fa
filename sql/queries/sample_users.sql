-- One row per user: the $count (an integer) users with the newest interactions.
select user_id
from interactions
group by user_id
order by max(timestamp) desc, user_id
limit $count::bigint
