-- The integer that a text writes, exactly: its plain digits, or those with a fraction of zeros, as
-- a column of floating point numbers is written (13.0). Null for all else: 007, +7, 1e2, 13.5.
-- reads: nothing
-- makes: macro integer_of_text
create or replace temp macro integer_of_text(input) as case
    when cast(try_cast(input as bigint) as varchar) = input then try_cast(input as bigint)
    when regexp_full_match(input, '-?(0|[1-9][0-9]*)[.]0+')
        then try_cast(regexp_replace(input, '[.]0+$', '') as bigint)
end
