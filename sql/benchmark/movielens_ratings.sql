-- One row per rating of MovieLens-100K, in the file's order; the moment is epoch seconds.
create table ratings as
select *
from read_csv(
    $path,
    delim = '\t',
    header = false,
    columns = {'user_id': 'bigint', 'movie_id': 'bigint', 'rating': 'double', 'rated_at': 'bigint'}
)
