-- The main job: write through the journal, ship it, replay it.
.load ./libtideline
.open 'file:notes.db?vfs=tideline'
CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO note(body) VALUES ('buy bread'), ('call Ada');
UPDATE note SET body = 'buy rye bread' WHERE id = 1;
SELECT * FROM note;
SELECT first_lsn, last_lsn, size_pages, kind, origin FROM tide_log;
SELECT writefile('delta.tide', tide_prepare(0)) > 0;
.open 'file:copy.db?vfs=tideline'
SELECT tide_lsn();
SELECT tide_receive(readfile('delta.tide'));
SELECT * FROM note;
PRAGMA integrity_check;
.open 'file:notes.db?vfs=tideline'
INSERT INTO note(body) VALUES ('water the fern');
DELETE FROM note WHERE id = 2;
SELECT writefile('later.tide', tide_prepare(3)) > 0;
SELECT tide_prepare(5) IS NULL;
.open 'file:copy.db?vfs=tideline'
SELECT tide_receive(readfile('later.tide'));
SELECT tide_receive(readfile('later.tide'));
SELECT tide_receive(NULL);
SELECT * FROM note;
SELECT last_lsn, size_pages, origin FROM tide_log WHERE last_lsn > 3;
