-- One row per user of `interactions`, with the number of interactions whose item is in `vocabulary`.
select
    interactions.user_id,
    count(vocabulary.item) as known
from interactions
left join vocabulary using (item_id)
group by interactions.user_id
order by interactions.user_id
