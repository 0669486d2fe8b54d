# Prints the files of one of SQLite's test suites (permutations.test): arguments are the folder of the tests, and its name.
set testdir [lindex $argv 0]
set suite [lindex $argv 1]
# Any other name than that script's own, which would run everything.
set argv0 $testdir/list
set argv [list --testdir=]
source $testdir/permutations.test
foreach file [dict get $::testspec($suite) -files] { puts "FILE $file" }
exit
