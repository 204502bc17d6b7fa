-- ISO dates and times (without an offset: UTC), or what a number says: a date
-- as YYYYMMDD, or epoch seconds, ms, us or ns by magnitude.
create or replace temp macro moment_of_text(given) as coalesce(
    case
        when isfinite(try_cast(trim(given) as timestamptz))
            then try_cast(trim(given) as timestamptz)
    end,
    moment_of_number(given)
)
