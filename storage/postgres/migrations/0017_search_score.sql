-- Searches say what a document is worth in their own statement.
drop function search_score(tsvector, tsquery[], int[], int[]);
