-- One row per user of `interactions` who was erased: an erasure was killed before its end.
-- reads: erasures, interactions
-- makes: rows (user_id)
select users.user_id
from (select distinct user_id from interactions) as users
inner join erasures
    on erasures.user_hash = sha256(erasures.salt || ':' || cast(users.user_id as varchar))
