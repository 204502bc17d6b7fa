-- One row: the names in `extra` of the items, with the type of their values, as JSON; or null.
-- reads: stored_items
-- makes: rows (structure)
select
    replace(
        cast(json_group_structure(cast(extra as json)) as varchar), 'UBIGINT', 'BIGINT'
    ) as structure
from stored_items
