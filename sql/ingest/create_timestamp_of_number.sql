-- Epoch seconds, milliseconds, microseconds or nanoseconds, told apart by size: seconds up to the
-- year 5138, milliseconds from 1973 on. A number beyond all of them is not a timestamp.
-- 20240101 is a date: eight digits that begin like one, from 1900 to 2100, are never seconds (they
-- would all lie in August and September 1970), and not a timestamp where there is no such day.
-- reads: nothing
-- makes: macro timestamp_of_number
create or replace temp macro timestamp_of_number(input) as case
    when not isfinite(try_cast(input as double)) then null
    when
        try_cast(input as double) between 19000000 and 21009999
        and try_cast(input as double) = floor(try_cast(input as double))
        then cast(
            try_strptime(cast(cast(try_cast(input as double) as bigint) as varchar), '%Y%m%d')
            as timestamptz
        )
    when abs(try_cast(input as double)) < 1e11
        then try(make_timestamptz(try_cast(try_cast(input as double) * 1e6 as bigint)))
    when abs(try_cast(input as double)) < 1e14
        then try(make_timestamptz(try_cast(try_cast(input as double) * 1e3 as bigint)))
    when abs(try_cast(input as double)) < 1e17
        then try(make_timestamptz(try_cast(input as bigint)))
    when abs(try_cast(input as double)) < 9.2e18
        then try(make_timestamptz(try_cast(input as bigint) // 1000))
end
