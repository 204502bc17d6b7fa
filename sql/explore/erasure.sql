-- One row, or none: when the user whose id is written $user_id was erased.
-- reads: erasures, $user_id
-- makes: rows (erased_at)
select erased_at
from erasures
where user_hash = sha256(salt || ':' || $user_id::varchar)
