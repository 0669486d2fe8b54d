# Runs a file of SQLite's tests, which is the first argument, with what differs for us.

# SQLite's tests move the page that is never used (the lock page) from 1 GiB to 64 KiB, so that they needn't make large
# files. That is another file format, and no extension can learn of it.
rename sqlite3_test_control_pending_byte {}
proc sqlite3_test_control_pending_byte {args} { return $::sqlite_pending_byte }

# Tests look into database files, copy and edit them. A database of Tideline's is a plain file at rest only: while it is
# open, they get what it would be then; and a file that they replace or edit loses its side folder, as the file of
# somebody who goes back to plain SQLite does. Under SQLite's own VFS there is no such folder, and nothing of this
# happens.

# True if this process has something of the database's side folder open.
proc tide_in_use {file} {
  foreach fd [glob -nocomplain /proc/self/fd/*] {
    if {![catch {tide_file readlink $fd} to] && [string match "*[tide_file tail $file]-tide/*" $to]} { return 1 }
  }
  return 0
}

# Evaluates `sql` on a connection of its own, if Tideline has the database and it isn't at rest; "" otherwise.
proc tide_ask {file sql} {
  if {![tide_file isdirectory $file-tide] || ![tide_in_use $file]} { return "" }
  set path [tide_file normalize $file]
  set answer ""
  catch {
    tide_sqlite3 tide_db "file:$path?vfs=tideline&cache=private" -uri 1
    set answer [tide_db eval $sql]
  }
  catch { tide_db close }
  return $answer
}

# A plain file with what the database has: itself, or an export.
proc tide_plain {file} {
  set export [tide_file normalize "tide-export"]
  tide_file delete -force $export $export-tide
  if {[tide_ask $file "SELECT tide_export('[string map {' ''} $export]')"] eq ""} { return $file }
  return $export
}

proc tide_forget {file} {
  if {[tide_file isdirectory $file-tide] && ![tide_in_use $file]} { tide_file delete -force $file-tide }
}

proc tide_copy {args} {
  set force [expr {[lindex $args 0] eq "-force"}]
  if {[llength $args] != 2 + $force} { return [tide_file copy {*}$args] }
  lassign [lrange $args $force end] from to
  if {[string match *-tide $from]} return
  tide_forget $to
  if {$force} { tide_file copy -force [tide_plain $from] $to } else { tide_file copy [tide_plain $from] $to }
}

proc tide_size {file} {
  set bytes [tide_ask $file "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"]
  if {$bytes eq ""} { tide_file size $file } else { return $bytes }
}

rename file tide_file
proc file {what args} {
  switch -- $what {
    copy { tide_copy {*}$args }
    size { tide_size {*}$args }
    default { uplevel 1 [list tide_file $what {*}$args] }
  }
}

rename open tide_open
proc open {name args} {
  if {[string index $name 0] ne "|"} {
    if {$args eq "" || [lindex $args 0] in {r rb RDONLY}} { set name [tide_plain $name] } else { tide_forget $name }
  }
  uplevel 1 [list tide_open $name {*}$args]
}

rename hexio_read tide_hexio_read
proc hexio_read {name args} { tide_hexio_read [tide_plain $name] {*}$args }
rename hexio_write tide_hexio_write
proc hexio_write {name args} { tide_forget $name; tide_hexio_write $name {*}$args }

# Kept under another name, because `tester.tcl` puts a procedure in its place.
rename sqlite3 tide_sqlite3
interp alias {} sqlite3 {} tide_sqlite3

# Evaluates the file as `source` would, but goes on behind a command that ends in an error: one that can't be done must
# not keep the others of its file from being run. It counts as a failed test, named by its line.
proc tide_source {file} {
  set stream [tide_open $file]
  set lines [split [read $stream] \n]
  close $stream
  info script $file
  set command ""
  set number 0
  foreach line $lines {
    incr number
    if {$command eq ""} { set first $number }
    append command $line \n
    if {![info complete $command]} continue
    set code [catch { uplevel #0 $command } message options]
    set command ""
    if {$code == 2} return
    if {$code == 1} {
      puts "\n! (line:$first) got: \[$message\]"
      fail_test (line:$first)
    }
  }
  finish_test
}

set argv0 [lindex $argv 0]
set argv [lrange $argv 1 end]
tide_source $argv0
