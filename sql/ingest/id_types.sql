-- One row: the type of both ids. An id is a vote where the rest of its row stands, and it is more
-- than blanks or a word for nothing. They are integers where all votes are, but for a few.
-- reads: recsys_source_rows, as_timestamp, $blanks, $null_words, $odd_share
-- makes: rows (user_id, item_id)
with votes as (
    select
        case
            when trim(user_id, $blanks) <> '' and not list_contains($null_words, trim(user_id))
                then user_is_integer
        end as user_vote,
        case
            when trim(item_id, $blanks) <> '' and not list_contains($null_words, trim(item_id))
                then item_is_integer
        end as item_vote
    from recsys_source_rows
    where
        fault is null
        and trim(user_id, $blanks) <> ''
        and trim(item_id, $blanks) <> ''
        and as_timestamp("timestamp") is not null
)

select
    if(
        bool_or(user_vote)
        and count(*) filter (where not user_vote) <= $odd_share * count(user_vote),
        'BIGINT',
        'VARCHAR'
    ) as user_id,
    if(
        bool_or(item_vote)
        and count(*) filter (where not item_vote) <= $odd_share * count(item_vote),
        'BIGINT',
        'VARCHAR'
    ) as item_id
from votes
