-- The time that a number stands for in a unit; null where it is beyond what a timestamp holds.
-- reads: nothing
-- makes: macro number_as_timestamp
create or replace temp macro number_as_timestamp(input, unit) as case
    when not isfinite(try_cast(input as double)) then null
    when unit = 's' then try(make_timestamptz(try_cast(try_cast(input as double) * 1e6 as bigint)))
    when unit = 'ms' then try(make_timestamptz(try_cast(try_cast(input as double) * 1e3 as bigint)))
    when unit = 'us' then try(make_timestamptz(try_cast(input as bigint)))
    when unit = 'ns' then try(make_timestamptz(try_cast(input as bigint) // 1000))
    when unit = 'ticks'
        then try(make_timestamptz((try_cast(input as bigint) - 621355968000000000) // 10))
    when unit = 'days'
        then try(make_timestamptz(try_cast(try_cast(input as double) * 86400e6 as bigint)))
    when unit = 'excel_days'
        then try(
            make_timestamptz(try_cast((try_cast(input as double) - 25569) * 86400e6 as bigint))
        )
    when
        unit = 'yyyymmdd'
        and try_cast(input as double) between 10000101 and 99991231
        and try_cast(input as double) = floor(try_cast(input as double))
        then cast(
            try_strptime(cast(cast(try_cast(input as double) as bigint) as varchar), '%Y%m%d')
            as timestamptz
        )
end
