-- One row per file: its lines that are not blank, and the keys in any line that is an object.
-- reads: lines
-- makes: rows (file, rows, keys)
with pairs as (
    select
        file,
        unnest(json_keys(line)) as name
    from lines
    where fault is null and json_valid(line) and json_type(line) = 'OBJECT'
),

keys_of_files as (
    select
        file,
        list(distinct name order by name) as keys
    from pairs
    group by file
)

select
    lines.file,
    count(*) filter (where trim(lines.line, ' ' || chr(9) || chr(13)) <> '') as "rows",
    any_value(keys_of_files.keys) as keys
from lines
left join keys_of_files on lines.file = keys_of_files.file
group by lines.file
