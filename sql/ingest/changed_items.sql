-- One row: how many items differ between what the lake holds and what the source gives.
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
