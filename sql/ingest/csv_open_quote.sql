-- One row at most: the first line that opens a quote and does not close it before its end.
-- reads: reject_errors
-- makes: rows (line)
select line
from reject_errors
where error_type = 'UNQUOTED VALUE' and contains(rtrim(csv_line, chr(10) || chr(13)), chr(10))
order by line
limit 1
