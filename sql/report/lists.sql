-- One row per rank up to $longest of each of $users on $run_date, with the item's title, and what
-- speaks for it: titles of the user's history, or how often it was taken.
-- reads: explanations, items, recommendations, $longest, $run_date, $users
-- makes: rows (user_id, rank, item_id, title, category, image, price, reason, score,
--     confidence, model_id, because, interactions)
with reasons as (
    select
        explanations.user_id,
        explanations.edition,
        explanations.rank,
        list(coalesce(items.title, because_item_id::varchar) order by number) filter (
            because_item_id is not null
        ) as because,
        max(interactions) as interactions
    from explanations
    left join items on explanations.because_item_id = items.item_id
    where run_date = $run_date::date and user_id in (select unnest($users))
    group by explanations.user_id, explanations.edition, explanations.rank
)

select
    lists.user_id,
    lists.rank,
    lists.item_id,
    items.title,
    items.category,
    items.extra ->> '$.image' as image,
    items.extra ->> '$.price' as price,
    lists.reason,
    lists.score,
    lists.confidence,
    lists.model_id,
    reasons.because,
    reasons.interactions
from recommendations as lists
left join items using (item_id)
left join reasons
    on
        lists.user_id = reasons.user_id
        and lists.edition = reasons.edition
        and lists.rank = reasons.rank
where
    lists.run_date = $run_date::date
    and lists.rank <= $longest::bigint
    and lists.user_id in (select unnest($users))
order by lists.user_id, lists.rank
