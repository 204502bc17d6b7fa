-- Epoch seconds, milliseconds, microseconds or nanoseconds, told apart by magnitude: seconds up to
-- the year 5138, milliseconds from 1973 on. A number beyond all of them is no moment.
-- 20240101 is a date: eight digits that begin like one, from 1900 to 2100, are never seconds (they
-- would all lie in August and September 1970), and no moment where there is no such day.
create or replace temp macro moment_of_number(given) as case
    when not isfinite(try_cast(given as double)) then null
    when
        try_cast(given as double) between 19000000 and 21009999
        and try_cast(given as double) = floor(try_cast(given as double))
        then cast(
            try_strptime(cast(cast(try_cast(given as double) as bigint) as varchar), '%Y%m%d')
            as timestamptz
        )
    when abs(try_cast(given as double)) < 1e11
        then try(make_timestamptz(try_cast(try_cast(given as double) * 1e6 as bigint)))
    when abs(try_cast(given as double)) < 1e14
        then try(make_timestamptz(try_cast(try_cast(given as double) * 1e3 as bigint)))
    when abs(try_cast(given as double)) < 1e17
        then try(make_timestamptz(try_cast(given as bigint)))
    when abs(try_cast(given as double)) < 9.2e18
        then try(make_timestamptz(try_cast(given as bigint) // 1000))
end
