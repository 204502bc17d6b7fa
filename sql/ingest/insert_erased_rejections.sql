-- One row per rejected row that names a user who was erased: it is not quarantined again.
-- reads: erasures, rejected_rows, words_of
-- makes: rows of quarantined_rows
insert into quarantined_rows
with words as (
    select
        row,
        reasons,
        unnest(words_of(row)) as word
    from rejected_rows
)

select distinct
    words.row,
    words.reasons
from words
inner join erasures on erasures.user_hash = sha256(erasures.salt || ':' || words.word)
