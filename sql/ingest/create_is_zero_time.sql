-- Times that programs write where they have none: the zero of Unix, .NET, Windows, SQL Server (two),
-- and Excel. (DuckDB makes a join of a list of constants, and a join keeps no order.)
-- reads: nothing
-- makes: macro is_zero_time
create or replace temp macro is_zero_time(input) as case input
    when timestamptz '1970-01-01 00:00:00+00' then true
    when timestamptz '0001-01-01 00:00:00+00' then true
    when timestamptz '1601-01-01 00:00:00+00' then true
    when timestamptz '1753-01-01 00:00:00+00' then true
    when timestamptz '1900-01-01 00:00:00+00' then true
    when timestamptz '1899-12-30 00:00:00+00' then true
    else false
end
