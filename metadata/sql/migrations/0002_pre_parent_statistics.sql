-- How many children a directory has on average, said once for all: what ANALYZE finds while a database is young (one
-- directory holds all) makes plans that read a whole workspace for each directory below a deleted one.
ALTER TABLE nodes ALTER COLUMN parent_id SET (n_distinct = -0.05);
