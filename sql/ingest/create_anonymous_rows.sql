-- One row per staged row without a user, where the source says that there are such rows: its
-- number (seq). They are counted, and neither accepted nor rejected.
-- reads: staged_rows, user_text, $blanks, $drop_null_users
-- makes: table anonymous_rows (seq)
create or replace temp table anonymous_rows as
select rowid as seq
from staged_rows
where
    $drop_null_users
    and (fault is null or fault = 'user_id is empty')
    and coalesce(trim(user_text(user_id), $blanks) = '', user_id is null)
