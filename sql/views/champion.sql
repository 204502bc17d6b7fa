-- One row, or none before the first training: the model that serves.
create view champion as
select *
from models
where status = 'champion';
