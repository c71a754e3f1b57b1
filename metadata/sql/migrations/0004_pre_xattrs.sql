-- Extended attributes of files and directories: encoded names and values; NULL: none.
ALTER TABLE nodes ADD COLUMN xattrs bytea;
