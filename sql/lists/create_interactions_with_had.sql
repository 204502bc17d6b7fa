-- One row per interaction, and whether its item counts as had by the roles of `[events]`.
-- reads: interactions, roles_of
-- makes: view interactions_with_had (user_id, item_id, had)
create or replace temp view interactions_with_had as
select
    user_id,
    item_id,
    (roles_of(event, value, "timestamp") & 4) <> 0 as had
from interactions
