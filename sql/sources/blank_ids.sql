-- Rows whose id is blank text, where ids turned out to be integers: there is no blank integer.
-- Macro: row_as_json. Parameters: whether the ids of users and of items are integers, blanks.
update pulled
set
    fault = if(
        $user_is_integer and trim(user_id, $blanks) = '', 'user_id is empty', 'item_id is empty'
    ),
    given = row_as_json(user_id, item_id, "timestamp", event, "value")
where
    fault is null
    and (
        ($user_is_integer and trim(user_id, $blanks) = '')
        or ($item_is_integer and trim(item_id, $blanks) = '')
    )
