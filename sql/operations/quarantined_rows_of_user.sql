-- One row per row of `quarantine` that names the user, in whichever column.
-- reads: quarantine, words_of, $user
-- makes: rows (batch_id, row)
select distinct
    batch_id,
    row
from quarantine
where list_contains(words_of(row), $user)
