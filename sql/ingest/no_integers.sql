-- Rows whose id is no integer, where ids are integers: blank, or text in a file against such a lake.
-- Macro: row_as_json. Parameters: whether the ids of users and of items are integers, blanks.
update recsys_pulled
set
    fault = case
        when $user_is_integer and trim(user_id, $blanks) = '' then 'user_id is empty'
        when $user_is_integer and user_id is not null and not user_is_integer
            then 'user_id is not an integer'
        when trim(item_id, $blanks) = '' then 'item_id is empty'
        else 'item_id is not an integer'
    end,
    given = coalesce(given, row_as_json(user_id, item_id, "timestamp", event, "value"))
where
    fault is null
    and (
        ($user_is_integer and user_id is not null and not user_is_integer)
        or ($item_is_integer and item_id is not null and not item_is_integer)
    )
