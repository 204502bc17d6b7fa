-- One row per rating of MovieLens-100K, in the file's order; the timestamp is epoch seconds.
-- reads: $path
-- makes: table ratings (*)
create table ratings as
select *
from read_csv(
    $path,
    delim = '\t',
    header = false,
    columns = {'user_id': 'bigint', 'movie_id': 'bigint', 'rating': 'double', 'rated_at': 'bigint'}
)
