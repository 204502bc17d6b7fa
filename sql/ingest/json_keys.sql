-- One row per key that stands in any line that is an object.
select distinct unnest(json_keys(line)) as name
from lines
where fault is null and json_valid(line) and json_type(line) = 'OBJECT'
order by name
