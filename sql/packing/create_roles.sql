-- What an interaction is for, as bits: 1 it is learnt to be predicted, 2 the model reads it, 4 its
-- item counts as had. A variable of DuckDB's that is null asks nothing.
-- reads: nothing
-- makes: macro roles_of
create or replace temp macro roles_of(event, value, happened) as (
    case
        when
            (
                getvariable('target_events') is null
                or coalesce(list_contains(getvariable('target_events'), event), false)
            )
            and (getvariable('min_value') is null or coalesce(value >= getvariable('min_value'), false))
            then 3
        when
            getvariable('context_events') is null
            or coalesce(list_contains(getvariable('context_events'), event), false)
            or coalesce(list_contains(getvariable('target_events'), event), false)
            then 2
        else 0
    end
    + if(
        (
            getvariable('seen_events') is null
            or coalesce(list_contains(getvariable('seen_events'), event), false)
        )
        and (getvariable('seen_since') is null or happened >= getvariable('seen_since')),
        4, 0
    )
)
