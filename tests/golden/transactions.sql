-- Commit, rollback, savepoints, a spill, and which of them take an LSN.
.load ./libtideline
.open 'file:a.db?vfs=tideline'
CREATE TABLE t(id INTEGER PRIMARY KEY, v);
BEGIN;
INSERT INTO t VALUES (1, 'one');
SELECT tide_lsn();
COMMIT;
SELECT tide_lsn();
BEGIN;
DELETE FROM t;
ROLLBACK;
SELECT tide_lsn(), id, v FROM t;
PRAGMA cache_size = 10;
PRAGMA cache_spill = 1;
BEGIN;
INSERT INTO t SELECT value, hex(zeroblob(500)) FROM generate_series(2, 999);
SAVEPOINT s;
UPDATE t SET v = 'gone';
ROLLBACK TO s;
SELECT count(*), min(length(v)), max(length(v)) FROM t;
ROLLBACK;
SELECT count(*) FROM t;
BEGIN;
INSERT INTO t SELECT value, hex(zeroblob(500)) FROM generate_series(2, 999);
SAVEPOINT s;
UPDATE t SET v = 'gone';
ROLLBACK TO s;
COMMIT;
SELECT count(*), min(length(v)), max(length(v)), tide_lsn() FROM t;
PRAGMA integrity_check;
SELECT first_lsn, last_lsn, origin FROM tide_log;
