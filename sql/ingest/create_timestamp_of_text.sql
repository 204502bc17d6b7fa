-- ISO dates and times (without an offset: UTC), or what a number says: a date as YYYYMMDD, or epoch
-- seconds, ms, us or ns by size.
-- reads: timestamp_of_number
-- makes: macro timestamp_of_text
create or replace temp macro timestamp_of_text(input) as coalesce(
    case
        when isfinite(try_cast(trim(input) as timestamptz))
            then try_cast(trim(input) as timestamptz)
    end,
    timestamp_of_number(input)
)
