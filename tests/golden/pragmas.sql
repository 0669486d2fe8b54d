-- What the pragmas answer that a WAL would answer.
.load ./libtideline
.open 'file:a.db?vfs=tideline'
PRAGMA journal_mode;
CREATE TABLE t(a);
PRAGMA journal_mode = delete;
PRAGMA main.journal_mode = off;
PRAGMA journal_mode;
INSERT INTO t VALUES (1);
PRAGMA wal_checkpoint;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA main.wal_checkpoint;
PRAGMA synchronous;
PRAGMA locking_mode;
SELECT a, tide_lsn() FROM t;
