-- ISO dates and times (without an offset: UTC), or what a number says in the column's unit.
-- reads: is_zero_time, timestamp_of_number
-- makes: macro timestamp_of_text
create or replace temp macro timestamp_of_text(input) as coalesce(
    case
        when
            isfinite(try_cast(trim(input) as timestamptz))
            and not is_zero_time(try_cast(trim(input) as timestamptz))
            then try_cast(trim(input) as timestamptz)
    end,
    timestamp_of_number(trim(input))
)
