-- Rows whose id is not an integer, where ids are integers: blank, or text, get a fault.
-- reads: recsys_source_rows, row_as_json, $blanks, $item_is_integer, $user_is_integer
-- makes: changes in recsys_source_rows
update recsys_source_rows
set
    fault = case
        when $user_is_integer and trim(user_id, $blanks) = '' then 'user_id is empty'
        when $user_is_integer and user_id is not null and not user_is_integer
            then 'user_id is not an integer'
        when trim(item_id, $blanks) = '' then 'item_id is empty'
        else 'item_id is not an integer'
    end,
    raw_row = coalesce(raw_row, row_as_json(user_id, item_id, "timestamp", event, "value"))
where
    fault is null
    and (
        ($user_is_integer and user_id is not null and not user_is_integer)
        or ($item_is_integer and item_id is not null and not item_is_integer)
    )
