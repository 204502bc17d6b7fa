-- One row per erased user, newest first: when, by whom and why; the user is not named.
select
    erased_at,
    who,
    why
from erasures
order by erased_at desc
