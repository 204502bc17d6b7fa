-- One row: how many items differ between the lake and the source.
-- reads: items, new_items
-- makes: rows (changed)
select count(*) as changed
from (
    (
        select * from new_items
        except
        select * from items
    )

    union all

    (
        select * from items
        except
        select * from new_items
    )
) as differences
