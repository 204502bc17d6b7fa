-- Every value in a quarantined row, as text: of a JSON object its values at any depth, of a line
-- that could not be read the pieces between its separators.
-- reads: nothing
-- makes: macro words_of
create or replace temp macro words_of(input) as list_concat(
    json_extract_string(input, '$..*'),
    if(
        json_type(input) = 'VARCHAR',
        regexp_split_to_array(json_extract_string(input, '$'), '[\s,;|:"''{}\[\]]+'),
        []
    )
)
