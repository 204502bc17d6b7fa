-- One row per change of champion, newest first: which model served from when on, by whom and why.
select
    promoted_at,
    action,
    model_id,
    previous_model_id,
    who,
    why
from promotions
order by promoted_at desc
