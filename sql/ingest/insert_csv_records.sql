-- One row per record of a CSV file; source_row counts records, the column names being the first.
-- `records` holds what could be read, in order, and `reject_errors` what could not.
-- reads: records, reject_errors, integer_of_text
-- makes: rows of recsys_source_rows
insert into recsys_source_rows
with refused as (
    select
        line,
        any_value(csv_line) as raw,
        case arg_min(error_type, byte_position)
            when 'MISSING COLUMNS' then 'wrong number of fields'
            when 'TOO MANY COLUMNS' then 'wrong number of fields'
            when 'INVALID ENCODING' then 'line is not UTF-8'
            else 'line is not CSV'
        end as fault
    from reject_errors
    group by line
),

-- The n-th refused line comes after the column names, n - 1 refused lines, and readable ones.
gaps as (
    select
        line - 1 - row_number() over (order by line) as readable_before,
        row_number() over (order by line) as refused_so_far
    from refused
),

shifts as (
    select
        readable_before,
        max(refused_so_far) as refused_so_far
    from gaps
    group by readable_before
),

readable as (
    select
        *,
        rowid as position
    from records
)

select
    readable.user_id,
    readable.item_id,
    readable."timestamp",
    readable.event,
    readable."value",
    readable.position + 2 + coalesce(shifts.refused_so_far, 0) as source_row,
    null as fault,
    null as raw_row,
    integer_of_text(readable.user_id) is not null,
    integer_of_text(readable.item_id) is not null
from readable
asof left join shifts on readable.position >= shifts.readable_before

union all

select
    null,
    null,
    null,
    null,
    null,
    line,
    fault,
    to_json(raw),
    false,
    false
from refused
order by source_row
