-- One row per listed item and what speaks for it, the strongest first, with titles.
-- reads: explanations, items, list
-- makes: rows (rank, item_id, title, reason, score, because_item_id, because, times_as_likely,
--     interactions, counted_since)
select
    list.rank,
    list.item_id,
    items.title,
    list.reason,
    list.score,
    explanations.because_item_id,
    history_items.title as because,
    exp(explanations.effect) as times_as_likely,
    explanations.interactions,
    explanations.counted_since
from list
left join explanations on list.item_id = explanations.item_id
left join items on list.item_id = items.item_id
left join items as history_items on explanations.because_item_id = history_items.item_id
order by list.rank nulls last, explanations.number
