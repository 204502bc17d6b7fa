-- One row: how often lists have more items of one value than the rules allow.
-- reads: caps, lists
-- makes: rows (rule, violations)
with crowded as (
    select user_id
    from lists
    inner join caps using (item_id)
    group by user_id, caps.name, caps.value
    having count(*) > any_value(caps.most)
)

select
    'no list has more items of one value than max_per allows' as rule,
    count(*) as violations
from crowded
