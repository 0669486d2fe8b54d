-- What is refused, and how it is said.
.load ./libtideline
.open 'file:a.db?vfs=tideline'
CREATE TABLE t(a);
INSERT INTO t VALUES (1);
SELECT writefile('a.tide', tide_prepare(0)) > 0;
INSERT INTO t VALUES (2);
INSERT INTO t VALUES (3);
SELECT writefile('gap.tide', tide_prepare(3)) > 0;
SELECT writefile('next.tide', tide_prepare(2)) > 0;
SELECT tide_prepare(5);
SELECT tide_prepare(-1);
SELECT tide_prepare('much');
SELECT tide_prepare(0, 0);
SELECT tide_lsn('nowhere');
.open 'file:b.db?vfs=tideline'
CREATE TABLE u(b);
SELECT writefile('b.tide', tide_prepare(0)) > 0;
.open 'file:copy.db?vfs=tideline'
SELECT tide_receive(readfile('a.tide'));
SELECT tide_receive(readfile('gap.tide'));
SELECT tide_receive(readfile('b.tide'));
SELECT tide_receive(substr(readfile('next.tide'), 1, 100));
SELECT tide_receive(CAST(zeroblob(500) AS BLOB));
SELECT tide_receive(17);
BEGIN;
INSERT INTO t VALUES (50);
SELECT tide_receive(readfile('next.tide'));
ROLLBACK;
INSERT INTO t VALUES (60);
SELECT tide_receive(readfile('next.tide'));
SELECT a FROM t;
SELECT tide_lsn();
.open 'file:a.db?vfs=tideline&frobnicate=1'
