-- The lines of JSON Lines files: of which file (0, 1, ...), and which of its lines (1, 2, ...).
-- reads: nothing
-- makes: table lines (line, fault, file, number)
create or replace temp table lines (line varchar, fault varchar, file bigint, number bigint)
