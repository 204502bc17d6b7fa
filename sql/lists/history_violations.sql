-- One row per rule on all lists together, with the number of violations: users whose list was made
-- from other items than `interactions` holds for them, or with others that count as had, from none,
-- or more than once.
-- reads: interactions_with_had, used_histories
-- makes: rows (rule, violations)
with histories as (
    select
        user_id,
        count(*) as interactions,
        sum(hash(item_id, had)) as content
    from interactions_with_had
    group by user_id
),

used as (
    select
        user_id,
        sum(interactions) as interactions,
        sum(content) as content
    from used_histories
    group by user_id
)

select
    'every list is made from its user''s interactions' as rule,
    count(*) as violations
from histories
full join used using (user_id)
where
    histories.interactions is distinct from used.interactions
    or histories.content is distinct from used.content
